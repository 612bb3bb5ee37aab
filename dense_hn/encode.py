"""Corpus and topics to vectors.

    python -m dense_hn.encode corpus --encoder DIR --corpus corpus.jsonl --output DIR
    python -m dense_hn.encode topics --encoder DIR --topics topics.tsv --output DIR

A vectors folder holds ``vectors.npy`` ([N, D] float32), ``docid`` (one a line, in the
same order), ``manifest.json`` (which encoder and corpus they come from) and
``costs.json`` (dense_hn.costs). After it was stopped, the same command goes on with the
passages that are missing. Started with ``torchrun --nproc_per_node N -m
dense_hn.encode corpus …``, N processes encode a part each.

A folder of encoded topics is for searching in Pyserini without the model; see
:func:`encode_topics`.
"""

import argparse
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dense_hn import (
    DenseHNError,
    __version__,
    cli,
    costs,
    document_vector,
    maxp,
    provenance,
    ranks,
    trec,
)
from dense_hn.collections.corpus import Corpus, read_corpus
from dense_hn.columns import Docids
from dense_hn.encoder import DenseEncoder, Kind
from dense_hn.files import (
    FACTS,
    digest,
    forget_parts,
    require_replaceable,
    whole_file,
    whole_folder,
)
from dense_hn.ids import write_docids
from dense_hn.search_command import as_typed, require_harmless
from dense_hn.token_cache import tokens_of
from dense_hn.vectors import DOCIDS, MANIFEST, MATRIX, Vectors

log = logging.getLogger("dense_hn")

# Passages that are sorted by length together, and then written.
WINDOW = 2**14
COSTS = "costs.json"
LABEL = {"query": "Encoding queries", "passage": "Encoding passages"}
# Besides float32, what an encoder's layers can compute in.
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# The names that Pyserini's --encoded-queries and Anserini's users know.
PICKLE, JSONL = "embedding.pkl", "topics.vect.jsonl"


def encode_texts(
    encoder: DenseEncoder, texts: Sequence[str], kind: Kind, size: int | None = None
) -> Tensor:
    """Vectors [N, D] (float32, CPU) of texts, in their order, without document_weight.

    Args:
        encoder: which.
        texts: the queries or passages.
        kind: which prefix and length apply.
        size: texts that go through the model together, if not what suits the device.
    """
    matrix = torch.empty(len(texts), encoder.dimension)
    with tqdm(total=len(texts), desc=LABEL[kind], unit=f" {kind}") as progress:
        for window in _windows(_cuts(len(texts))):
            part = slice(window.start, window.stop)
            ids = encoder.tokenize(texts[part], kind)
            matrix[part] = _encode(encoder, ids, progress, size=size)
    return matrix


def encode_in_memory(encoder: DenseEncoder, corpus: Mapping[str, str]) -> Vectors:
    """Encode passages (docid → text) for the moment, without a folder.

    Of several processes (dense_hn.ranks), each encodes a part, and all have all.
    """
    corpus = Corpus.of(corpus)
    cuts = _cuts_of(encoder, corpus)
    matrix = torch.zeros(len(corpus), encoder.dimension)

    def put(window: range, vectors: np.ndarray) -> None:
        matrix[window.start : window.stop] = torch.from_numpy(vectors)

    _encode_windows(encoder, corpus, _windows(cuts, *ranks.place()), put)
    where = Path("(in memory)")
    matrix = ranks.summed(matrix)
    return Vectors(corpus.docids, matrix, encoder.digest(), corpus.digest, where)


def encode_some(
    encoder: DenseEncoder, corpus: Mapping[str, str], docids: Sequence[str]
) -> Vectors:
    """Vectors of some passages of a corpus, as :func:`encode_corpus` has them, for the moment."""
    wanted: Iterable[str] = docids
    if encoder.settings.document_weight:
        documents = set(map(maxp.document, docids))
        wanted = [docid for docid in corpus if maxp.document(docid) in documents]
    vectors = encode_in_memory(encoder, {docid: corpus[docid] for docid in wanted})
    rows = vectors.docids.rows(docids)
    return replace(vectors, docids=Docids.of(docids), matrix=vectors.matrix[rows])


def encode_corpus(
    encoder: DenseEncoder,
    corpus: Mapping[str, str],
    folder: str | Path,
    half: str | None = None,
) -> Vectors:
    """Encode a corpus (docid → text) into a vectors folder, and return it.

    Vectors are written window by window, and a run that was stopped goes on after the
    last one. Nothing is encoded when the folder holds this encoder's vectors of this
    corpus.

    Args:
        encoder: of passages.
        corpus: what is encoded.
        folder: to write.
        half: ``fp16`` or ``bf16``, what the layers compute in instead of float32. The
            vectors are float32, and differ in the third or second digit.

    Raises:
        DenseHNError: a vector that is not finite, as ``fp16`` may give; a folder that
            holds other things; a disk that is full.
    """
    folder, corpus = Path(folder), Corpus.of(corpus)
    manifest = {
        "encoder": encoder.digest(),
        "corpus": corpus.digest,
        "passages": len(corpus),
        "dimension": encoder.dimension,
        "precision": half or "fp32",
        "dense_hn": __version__,
    }
    rank, number = ranks.place()
    made, said = folder / MANIFEST, json.dumps(manifest, indent=2) + "\n"
    if made.is_file() and made.read_bytes() == said.encode():
        log.info("%s holds this encoder's vectors of this corpus", folder)
        if not rank:
            forget_parts(folder)
        return Vectors.load(folder)
    holds, also = (MATRIX, DOCIDS, MANIFEST), [COSTS]
    require_replaceable(folder, *holds, also=also)
    cuts = _cuts_of(encoder, corpus)
    with costs.Costs() as spent, ranks.parts(folder, manifest) as parts:
        if not rank and not (parts / MATRIX).is_file():
            _begin(parts, (len(corpus), encoder.dimension), folder)
        ranks.wait()
        there = {file.name for file in parts.iterdir()}
        # Before any process adds to them.
        ranks.wait()
        missing = [
            [one for one in _windows(cuts, of, number) if _name(one) not in there]
            for of in range(number)
        ]
        put = partial(_put, parts, np.load(parts / MATRIX, mmap_mode="r").offset)
        _encode_windows(encoder, corpus, missing[rank], put, half)
        with ranks.one_folder(folder, *holds, also=also) as made:
            if not rank:
                write_docids(made / DOCIDS, corpus)
                (made / MANIFEST).write_text(said)
                _move(parts / MATRIX, made / MATRIX)
    if not rank:
        facts = spent.facts()
        encoded = sum(len(window) for windows in missing for window in windows)
        facts["passages_per_second"] = round(encoded / facts["seconds"], 1)
        rate = f"{facts['passages_per_second']:.0f} passages a second"
        costs.write(folder / COSTS, facts, f"{folder}: {rate}")
    return Vectors.load(folder)


def _begin(parts: Path, shape: tuple[int, int], folder: Path) -> None:
    """Make the file that vectors are written into, in a folder of parts without one."""
    # What an earlier call said of vectors that are not here any more.
    for file in set(parts.iterdir()) - {parts / FACTS}:
        file.unlink()
    with whole_file(parts / MATRIX) as new:
        np.lib.format.open_memmap(new, "w+", np.float32, shape).flush()
        _reserve(new, folder)


def _put(parts: Path, begin: int, window: range, vectors: np.ndarray) -> None:
    """Write a window's vectors, from byte ``begin`` of the file on, and that they are in."""
    # Not mapped: other machines may be writing next to it.
    with (parts / MATRIX).open("r+b") as file:
        file.seek(begin + window.start * vectors[0].nbytes)
        file.write(vectors.tobytes())
        file.flush()
        os.fsync(file.fileno())
    (parts / _name(window)).touch()


def _move(source: Path, target: Path) -> None:
    """Have a file under both names, so that no stop can lose it, where the disk can do that."""
    try:
        os.link(source, target)
    except OSError:
        os.replace(source, target)


def _name(window: range) -> str:
    """Of the file that says of a window, beside the vectors, that it is in there."""
    return f"{window.start}-{window.stop}"


def _cuts(total: int, number: int = 1) -> list[int]:
    """Where windows of so many rows begin and end, for ``number`` processes."""
    size = min(WINDOW, -(-total // number))
    return [*range(0, total, max(1, size)), total]


def _cuts_of(encoder: DenseEncoder, corpus: Corpus) -> list[int]:
    """The same of a corpus, where documents are in one window each if vectors need them so.

    Raises:
        DenseHNError: passages of a document that do not stand together, where they must.
    """
    cuts = _cuts(len(corpus), ranks.place()[1])
    weight = encoder.settings.document_weight
    if not weight:
        return cuts
    if not document_vector.require_together(corpus.docids):
        log.warning(
            "document_weight changes nothing: no document has several passages (D#0, D#1); cut "
            "the corpus (dense_hn.collections passages:…), or leave the weight out"
        )
    return document_vector.moved(cuts, corpus.docids)


def _windows(cuts: Sequence[int], rank: int = 0, number: int = 1) -> list[range]:
    """The rows of each window that process ``rank`` of ``number`` encodes."""
    windows = [range(*ends) for ends in pairwise(cuts) if ends[0] < ends[1]]
    return windows[rank::number]


def _reserve(matrix: Path, folder: Path) -> None:
    """Take the disk's space at once, before anything is encoded."""
    with open(matrix, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise DenseHNError(
                f"{folder}: no room for {size / 2**30:.1f} GiB of vectors "
                f"({error.strerror}); free some, or name a folder on another disk"
            ) from None


def _encode_windows(
    encoder: DenseEncoder,
    corpus: Corpus,
    windows: Sequence[range],
    put: Callable[[range, np.ndarray], None],
    half: str | None = None,
) -> None:
    """Encode windows of a corpus, and ``put`` the vectors [rows, D] of each.

    Raises:
        DenseHNError: a vector that is not finite.
    """
    with costs.part("tokenise"):
        tokens = tokens_of(encoder, corpus, "passage")
    total = sum(map(len, windows))
    if encoder.settings.document_weight:
        docids = (corpus.docids[row] for window in windows for row in window)
        total += len(maxp.several(docids))
    with tqdm(total=total, desc=LABEL["passage"], unit=" passage") as progress:
        for window in windows:
            ids = [tokens[row] for row in window]
            vectors = _encode(encoder, ids, progress, half).numpy()
            if encoder.settings.document_weight:
                passages = {corpus.docids[row]: corpus.texts[row] for row in window}
                vectors = _with_documents(encoder, vectors, passages, progress, half)
            with costs.part("write"):
                broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
                if broken.size:
                    docid = corpus.docids[window[broken[0]]]
                    raise DenseHNError(
                        f"the vector of {docid!r} has a number that is not finite; "
                        "leave out --fp16 if it was given, else look at the encoder"
                    )
                put(window, vectors)


def _with_documents(
    encoder: DenseEncoder,
    vectors: np.ndarray,
    passages: Mapping[str, str],
    progress: tqdm,
    half: str | None,
) -> np.ndarray:
    """The vectors [N, D] of all passages of some documents, with those of the documents."""
    settings = encoder.settings
    place = {name: row for row, name in enumerate(maxp.several(passages))}
    if not place:
        return vectors
    length = settings.document_length
    with costs.part("tokenise"):
        # A word is a token or more.
        texts = maxp.documents(passages, length)
        ids = encoder.tokenize([texts[name] for name in place], "passage", length)
    names = list(map(maxp.document, passages))
    rows = [row for row, name in enumerate(names) if name in place]
    own = [place[names[row]] for row in rows]
    wholes = _encode(encoder, ids, progress, half).numpy()[own]
    weight, l2_norm = settings.document_weight, settings.l2_norm
    vectors[rows] = document_vector.add(vectors[rows], wholes, weight, l2_norm)
    return vectors


@torch.no_grad()
def _encode(
    encoder: DenseEncoder,
    ids: Sequence[Sequence[int]],
    progress: tqdm,
    half: str | None = None,
    size: int | None = None,
) -> Tensor:
    """Vectors [N, D] (float32, CPU) of token ids, in their order.

    The longest go first, so that what memory is needed shows at once.
    """
    encoder.eval()
    device = encoder.device
    cast = torch.autocast(device.type, HALVES[half]) if half else nullcontext()
    with costs.part("encode"), cast:
        batch = encoder.batch(ids, size)
        slices, vectors = batch["slices"], []
        for one in reversed(slices):
            places = torch.arange(len(one["input_ids"]), device=device)
            if device.type == "cuda":
                one = {name: tensor.pin_memory() for name, tensor in one.items()}
            one = {n: tensor.to(device, non_blocking=True) for n, tensor in one.items()}
            vectors.append(encoder([one], places))
            progress.update(len(places))
        return torch.cat(vectors[::-1]).cpu()[batch["places"]]


def encode_topics(
    encoder: DenseEncoder, topics_path: str | Path, folder: str | Path
) -> None:
    """Encode topics into a folder that Pyserini searches with, without the model.

    It holds, both in the topics' order:

    * ``embedding.pkl`` for ``search.faiss --encoded-queries FOLDER``: a pandas DataFrame
      ``id, text, embedding`` ([D] float32 each), where a topic is looked up by its text
    * ``topics.vect.jsonl`` for ``search.lucene --dense --topics``: ``{"qid", "title"}``,
      the vector being the title, a JSON array in a string

    and ``manifest.json`` (which encoder and topics they come from).

    Args:
        encoder: the query encoder.
        topics_path: in one of the formats of dense_hn.topic_formats.
        folder: folder to write.

    Raises:
        DenseHNError: before anything is encoded: topics that cannot be read, a folder
            that holds other things, or whose path has ``bpr`` in it.
    """
    import pandas

    require_harmless(folder, "encoded queries")
    topics = trec.read_topics(topics_path)
    for qid in [qid for qid in topics if trec.renumbered(qid)][:1]:
        log.warning(
            "%s: search.lucene makes a number of query id %r; rename it for that",
            topics_path,
            qid,
        )
    manifest = {
        "query_encoder": encoder.digest("query"),
        "topics": digest(topics_path),
        "queries": len(topics),
        "dimension": encoder.dimension,
        "dense_hn": __version__,
        "command": provenance.command(),
    }
    with whole_folder(folder, PICKLE, JSONL, MANIFEST) as made:
        matrix = encode_texts(encoder, list(topics.values()), "query")
        columns = {"id": list(topics), "text": list(topics.values())}
        columns |= {"embedding": list(matrix.numpy())}
        # Strings as objects: pandas 2 does not read the string type of pandas 3.
        pandas.DataFrame(columns, dtype=object).to_pickle(made / PICKLE)
        with open(made / JSONL, "w", encoding="utf-8") as file:
            for qid, row in zip(topics, matrix.tolist(), strict=True):
                line = json.dumps({"qid": qid, "title": json_vector(row)})
                file.write(f"{line}\n")
        (made / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def json_vector(vector: Sequence[float]) -> str:
    """A vector of float32 numbers as a JSON array.

    Nine significant digits tell any two of them apart, also where they are read as
    64-bit floats first; the exponent keeps -0.0 from being read as a whole number.
    """
    return f"[{','.join(['%.8e'] * len(vector)) % tuple(vector)}]"


def search_command(
    folder: str | Path,
    topics: str | Path,
    index: str | Path,
    output: str | Path,
    hits: int = 1000,
) -> list[str]:
    """Arguments of ``pyserini.search.faiss`` that search with encoded topics.

    Args:
        folder: from :func:`encode_topics`.
        topics: the file they were made from, as trec.for_pyserini gives it.
        index: faiss index folder.
        output: run file that Pyserini will write.
        hits: documents per topic.

    Raises:
        DenseHNError: a path that makes Pyserini read topics or vectors in another way.
    """
    require_harmless(folder, "encoded queries")
    require_harmless(topics, "topics")
    command = ["--encoded-queries", str(folder), "--index", str(index)]
    command += ["--topics", str(topics), "--output", str(output)]
    return [*command, "--hits", str(hits)]


def topics_beside(folder: str | Path) -> Path:
    """Where topics are written beside a folder in the form that Pyserini reads."""
    path = Path(folder)
    # Where one stands has no name by itself.
    path = path if path.name else path.resolve()
    return path.with_name(f"{path.name}.topics.json")


def add_halves(parser: argparse.ArgumentParser) -> None:
    """Let a command line say what the layers compute in: ``half``, one of HALVES or None."""
    halves = parser.add_mutually_exclusive_group()
    for half in HALVES:
        halves.add_argument(
            f"--{half}",
            dest="half",
            action="store_const",
            const=half,
            help="what the layers compute in on a GPU, instead of float32",
        )


def main() -> None:
    """Encode a corpus or topics from the command line."""
    parser = cli.parser("dense_hn.encode", __doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    for what, file in (
        ("corpus", "JSONL, TSV or a folder"),
        ("topics", "TSV, TREC or JSON"),
    ):
        one = commands.add_parser(what, help=f"encode {what}")
        one.add_argument("--encoder", required=True, help="folder or hub name")
        one.add_argument(f"--{what}", required=True, help=file)
        one.add_argument("--output", required=True, help="folder to write")
        if what == "corpus":
            add_halves(one)
    args = parser.parse_args()
    if args.what == "corpus":
        ranks.start()
        corpus, encoder = read_corpus(args.corpus), DenseEncoder.load(args.encoder)
        if encoder.settings.passage_encoder:
            log.warning(
                "%s: was trained to search the passages of another encoder, as ADORE's are; a "
                "corpus is encoded with that one",
                args.encoder,
            )
        encode_corpus(encoder, corpus, args.output, args.half)
        return
    topics = trec.for_pyserini(args.topics, topics_beside(args.output))
    command = search_command(args.output, topics, "INDEX", "RUN.txt")
    encode_topics(DenseEncoder.load(args.encoder), args.topics, args.output)
    print(as_typed("search.faiss", command))


if __name__ == "__main__":
    cli.run(main)
