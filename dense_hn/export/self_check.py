"""Whether Pyserini finds in an exported folder what we find, before it gets its name."""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from dense_hn import DenseHNError, search, trec
from dense_hn.encode import encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.export import manifest
from dense_hn.export.faiss_index import INDEX
from dense_hn.search_command import search_command
from dense_hn.vectors import DOCIDS, Vectors

HITS = 10
# Longer than any encoder reads, short, with capitals, accents, punctuation and blanks:
# where tokenizers and lengths come apart.
QUERIES = (
    "weather",
    "who wrote it?",
    "How do I read a file line by line in Python",
    "Où est la bibliothèque de l'Université, s.v.p. ?",
    "what is the difference between a llama and an alpaca (size, wool, price: $1,000)",
    "a question about hard negatives that goes on and on " * 60,
)
# Topics of a file that are searched besides.
SAMPLE = 8


def sample(texts: Iterable[str]) -> list[str]:
    """Eight of the texts, from the shortest to the longest; all where there are fewer."""
    texts = sorted(set(texts), key=lambda text: (len(text), text))
    if len(texts) <= SAMPLE:
        return texts
    return [texts[n * (len(texts) - 1) // (SAMPLE - 1)] for n in range(SAMPLE)]


def asked(texts: Iterable[str]) -> trec.Topics:
    """``QUERIES`` and the texts, as topics that a TSV file holds as they are."""
    texts = [" ".join(text.split()) for text in (*QUERIES, *texts)]
    return {f"q{n}": text for n, text in enumerate(texts)}


def self_check(
    folder: Path,
    vectors: Vectors,
    encoder: DenseEncoder,
    path: str,
    texts: Sequence[str] = (),
) -> str:
    """Check an exported faiss folder: what it was made from, its counts, and its hits.

    The queries are encoded and searched one at a time on the CPU, as Pyserini does, so
    that rounding is the same; there the encoder is afterwards.

    Args:
        folder: ``index``, ``docid`` and ``manifest.json``.
        vectors: what it was made from.
        encoder: the query encoder, loaded (with the check of its tokenizer).
        path: its folder or hub name, as Pyserini will get it.
        texts: queries to search besides ``QUERIES``.

    Returns:
        What was found, in one line.

    Raises:
        DenseHNError: says what is not as it must be.
    """
    import faiss

    require_whole(encoder, path)
    manifest.require_belongs(folder, encoder, path)
    manifest.require_corpus(folder, vectors.corpus, vectors.path)
    index = faiss.read_index(str(folder / INDEX))
    docids = (folder / DOCIDS).read_text(encoding="utf-8").splitlines()
    made_from = manifest.read(folder)
    counts = (index.ntotal, len(docids), made_from["passages"])
    if counts != (len(vectors.docids),) * 3:
        raise DenseHNError(
            f"{folder}: {counts[0]} vectors in index, {counts[1]} lines in docid, "
            f"{counts[2]} passages in manifest.json and {len(vectors.docids)} in "
            f"{vectors.path}; export anew"
        )
    if docids != vectors.docids:
        raise DenseHNError(
            f"{folder}: docid has not the docids of {vectors.path}; export anew"
        )

    hits = min(HITS, len(docids))
    topics = asked(texts)
    queries = encode_texts(encoder.cpu(), list(topics.values()), "query", size=1)
    found = [index.search(query[None].numpy(), hits) for query in queries]
    scores, rows = map(np.concatenate, zip(*found, strict=True))
    # Pyserini will want as much memory again.
    del index
    ours = {
        # faiss fills up with row -1 where it finds fewer.
        qid: {docids[n]: float(s) for n, s in zip(*one, strict=True) if n >= 0}
        for qid, *one in zip(topics, rows, scores, strict=True)
    }
    with tempfile.TemporaryDirectory() as temporary:
        file, output = Path(temporary) / "topics.tsv", Path(temporary) / "run.txt"
        trec.write_topics(file, topics)
        command = search_command(encoder.settings, path, folder, file, output, hits)
        theirs = in_pyserini(["search.faiss", *command], output, path)
    mend = (
        f"run `python -m dense_hn.encoder --source {path} --output DIR` and name that "
        "folder, which tells Pyserini tokenizer and length"
    )
    largest = largest_difference(ours, theirs, topics, path, mend)
    share = share_of_best(queries, vectors.matrix, torch.from_numpy(rows))
    if made_from["vectors"]["form"] == "flat":
        require_exact(share, folder, vectors)
    return said(vectors, topics, hits, largest, share)


def require_exact(share: float, folder: Path, vectors: Vectors) -> None:
    """Refuse a folder of an exact form that does not find all of the best.

    Raises:
        DenseHNError: says which share of them it finds.
    """
    if share < 1:
        raise DenseHNError(
            f"{folder}: finds {share:.1%} of the exact top hits; the index does not "
            f"hold the vectors of {vectors.path}; export anew"
        )


def said(
    vectors: Vectors, topics: trec.Topics, hits: int, largest: float, share: float
) -> str:
    """What a self-check found, in one line."""
    version = importlib.metadata.version("pyserini")
    return (
        f"{len(vectors.docids)} passages; Pyserini {version} finds our {hits} hits of "
        f"{len(topics)} queries, scores to {largest:.0e}; {share:.1%} of the exact top "
        f"{hits}"
    )


def require_whole(encoder: DenseEncoder, path: str) -> None:
    """Refuse an encoder for which Pyserini would make up weights.

    Raises:
        DenseHNError: its checkpoint lacks weights; its ``pytorch_model.bin``, from
            which Pyserini 2.x loads `ance`, has other ones.
    """
    if encoder.made_up:
        raise DenseHNError(
            f"{path}: the checkpoint has no {', '.join(encoder.made_up[:3])}, and "
            "random ones would be taken; train it first, or mend the checkpoint"
        )
    file = Path(path) / "pytorch_model.bin"
    if encoder.settings.architecture != "ance" or not file.is_file():
        return
    state = torch.load(file, map_location="cpu", weights_only=True)
    for name, weight in encoder.model.state_dict().items():
        if "pooler" in name.split("."):
            continue
        if name not in state or not torch.equal(state[name].float(), weight.cpu()):
            raise DenseHNError(
                f"{file}: {name} is missing or other than in model.safetensors, and "
                "Pyserini 2.x takes this file; run `python -m dense_hn.encoder --source "
                f"{path} --output DIR` and name that folder"
            )


def in_pyserini(arguments: Sequence[str], output: Path, name: str) -> trec.Run:
    """The run that `python -m dense_hn.pyserini` writes.

    Args:
        arguments: of its command line.
        output: the run file that they name.
        name: what is searched with, for the message.

    Raises:
        DenseHNError: it wrote none; says what it printed last.
    """
    # This dense_hn, also where another one, or none, is installed.
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "dense_hn.pyserini", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    if done.returncode or not output.is_file():
        last = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise DenseHNError(
            f"{name}: Pyserini cannot search with it (status {done.returncode}): {last}"
        )
    return trec.read_run(output)


def largest_difference(
    ours: trec.Run, theirs: trec.Run, topics: trec.Topics, name: str, mend: str
) -> float:
    """The largest difference of two scores for a document.

    Args:
        ours: our run.
        theirs: Pyserini's.
        topics: what was searched.
        name: what was searched with, for the message.
        mend: what to do about a difference, for the message.

    Raises:
        DenseHNError: one is larger than rounding (1e-4, or 1e-6 of scores above 100),
            or hits differ other than by equal scores at the last place.
    """
    largest = 0.0
    for qid, text in topics.items():
        pair = ours[qid], theirs.get(qid, {})
        ranked = (sorted(hits.values(), reverse=True) for hits in pair)
        differences = [abs(a - b) for a, b in zip(*ranked, strict=False)]
        differences += [abs(pair[0][d] - pair[1][d]) for d in pair[0].keys() & pair[1]]
        for one, other in (pair, pair[::-1]):
            last = min(one.values(), default=0.0)
            differences += [abs(one[d] - last) for d in one.keys() - other]
        difference = max(differences, default=0.0)
        highest = max(map(abs, ours[qid].values()), default=0.0)
        if len(pair[0]) != len(pair[1]) or difference > max(1e-4, 1e-6 * highest):
            raise DenseHNError(
                f"{name}: Pyserini does not find what we find: for the query "
                f"{text[:60]!r}, {len(pair[1])} hits and not {len(pair[0])}, or scores "
                f"that are {difference:.1e} away; {mend}"
            )
        largest = max(largest, difference)
    return largest


def share_of_best(
    queries: torch.Tensor, matrix: torch.Tensor, rows: torch.Tensor
) -> float:
    """How many of the rows found, [Q, k] or -1, are among the k best of all.

    By their exact scores, so that equal passages stand for each other.
    """
    best, _ = search.top_k(queries, matrix, rows.shape[1])
    scores = torch.einsum("qd,qkd->qk", queries, matrix[rows.clamp(min=0)])
    # Rounding of another order of summation.
    enough = scores >= best[:, -1:] - 1e-6 * best.abs().amax(dim=1, keepdim=True)
    return ((rows >= 0) & enough).double().mean().item()
