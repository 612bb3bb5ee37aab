"""A BEIR folder: its corpus, queries and qrels as this project's files.

    python -m dense_hn.collections.beir --input scifact/ --output collections/scifact

Reads ``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``,
``text``) and ``qrels/SPLIT.tsv`` (a header, then ``query-id<TAB>corpus-id<TAB>score``).
A passage is title, blank and text, as BEIR's own models read it. Without
``qrels/dev.tsv``, a tenth of the training queries become dev ones. What cannot be used
is left out and counted: documents without any text, judgements of them, queries that
nothing is judged relevant for, and training queries that are evaluated on as well (the
same words, whatever their case).

Source of the format: Thakur et al., arXiv 2104.08663, and the package beir.
"""

import argparse
import json
import logging
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dense_hn import DenseHNError, cli, trec
from dense_hn.collections.jsonl import Corpus, write_corpus
from dense_hn.files import digest, require_file, require_folder, whole_folder

log = logging.getLogger("dense_hn")

SPLITS = ("train", "dev", "test")
HELD_OUT = 0.1
SEED = 42


def build(source: str | Path, folder: str | Path) -> None:
    """Write a BEIR folder's collection into ``folder``, as ``pydoc.build`` lays it out.

    Args:
        source: BEIR folder.
        folder: where corpus, topics and qrels of the splits that there are go.

    Raises:
        DenseHNError: a file or a field that is missing, an id that occurs twice or has
            white space, a judgement of a document or a query that there is not.
    """
    source = require_folder(source, "BEIR folder")
    left_out: Counter[str] = Counter()
    corpus = _texts(source / "corpus.jsonl")
    empty = {docid for docid, text in corpus.items() if not text}
    left_out["documents without text"] = len(empty)
    texts = _texts(source / "queries.jsonl")
    qrels: dict[str, trec.Qrels] = {}
    for split in SPLITS:
        path = source / "qrels" / f"{split}.tsv"
        if path.exists():
            qrels[split] = _judged(path, texts, corpus, empty, left_out)
    if not qrels:
        raise DenseHNError(f"{source}: no qrels/train.tsv, dev.tsv or test.tsv in it")
    if "train" in qrels and "dev" not in qrels:
        train = qrels["train"]
        number = max(1, int(HELD_OUT * len(train)))
        held_out = random.Random(SEED).sample(sorted(train), number)
        qrels["dev"] = {qid: train.pop(qid) for qid in held_out}
    _separate(qrels, texts, left_out)
    with whole_folder(folder, "corpus/corpus.jsonl") as partial:
        kept: Corpus = {docid: text for docid, text in corpus.items() if text}
        write_corpus(partial / "corpus" / "corpus.jsonl", kept)
        for split, judged in qrels.items():
            topics = {qid: texts[qid] for qid in judged}
            trec.write_topics(partial / f"topics.{split}.tsv", topics)
            trec.write_qrels(partial / f"qrels.{split}.txt", judged)
    log.info(
        "%s: %d documents; %s; left out: %s",
        source,
        len(kept),
        ", ".join(f"{len(judged)} {split} topics" for split, judged in qrels.items()),
        ", ".join(f"{n} {what}" for what, n in left_out.items() if n) or "nothing",
    )


def source_digests(source: str | Path) -> list[str]:
    """Digests of the files that :func:`build` reads."""
    source = require_folder(source, "BEIR folder")
    files = [source / "corpus.jsonl", source / "queries.jsonl"]
    files += sorted((source / "qrels").glob("*.tsv"))
    return [digest(require_file(path, "part of a BEIR folder")) for path in files]


def _texts(path: Path) -> dict[str, str]:
    """Id to title and text of every line."""
    texts: dict[str, str] = {}
    with open(require_file(path, "part of a BEIR folder"), "rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                item = json.loads(line)
            except ValueError as error:
                raise DenseHNError(f"{where}: broken JSON ({error})") from None
            fields = item if isinstance(item, dict) else {}
            name, text = fields.get("_id"), fields.get("text")
            title = fields.get("title") or ""
            if not all(isinstance(value, str) for value in (name, text, title)):
                raise DenseHNError(
                    f'{where}: expected {{"_id": "…", "text": "…"}} with strings'
                )
            if name.split() != [name]:
                raise DenseHNError(
                    f"{where}: _id {name!r} is empty or has white space; rename it"
                )
            if name in texts:
                raise DenseHNError(f"{where}: _id {name!r} occurs twice; keep one line")
            texts[name] = f"{title} {text}".strip()
    return texts


def _judged(
    path: Path,
    texts: dict[str, str],
    corpus: dict[str, str],
    empty: set[str],
    left_out: Counter[str],
) -> trec.Qrels:
    """The judgements of a split, queries without a relevant document left out."""
    qrels: trec.Qrels = {}
    for where, qid, docid, score in _rows(path):
        if qid not in texts or docid not in corpus:
            kind, name = ("query", qid) if qid not in texts else ("document", docid)
            raise DenseHNError(
                f"{where}: {kind} {name!r} is not in {path.parents[1]}; remove the line, "
                "or fetch the collection anew"
            )
        judged = qrels.setdefault(qid, {})
        if docid in empty:
            left_out["judgements of documents without text"] += 1
        elif judged.setdefault(docid, score) != score:
            raise DenseHNError(f"{where}: {docid!r} is judged twice for query {qid!r}")
    usable = {
        qid: judged
        for qid, judged in qrels.items()
        if texts[qid] and trec.positives(qrels, qid)
    }
    what = f"{path.stem} queries without text or without a relevant document"
    left_out[what] = len(qrels) - len(usable)
    return usable


def _rows(path: Path) -> Iterator[tuple[str, str, str, int]]:
    """(``file:line``, qid, docid, score) of every line below the header."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            columns = line.rstrip("\r\n").split("\t")
            if number == 1 and columns[-1] == "score":
                continue
            try:
                qid, docid, score = columns
                yield f"{path}:{number}", qid, docid, int(score)
            except ValueError:
                raise DenseHNError(
                    f"{path}:{number}: expected `query-id<TAB>corpus-id<TAB>score`, got "
                    f"{line[:80]!r}"
                ) from None


def _separate(
    qrels: dict[str, trec.Qrels], texts: dict[str, str], left_out: Counter[str]
) -> None:
    """Take training queries out that stand, word for word, in another split."""
    evaluated = {
        " ".join(texts[qid].casefold().split())
        for split, judged in qrels.items()
        for qid in judged
        if split != "train"
    }
    for qid in list(qrels.get("train", {})):
        if " ".join(texts[qid].casefold().split()) in evaluated:
            del qrels["train"][qid]
            left_out["training queries that are evaluated on"] += 1


def main() -> None:
    """Turn a BEIR folder into a collection from the command line."""
    parser = argparse.ArgumentParser(
        prog="dense_hn.collections.beir",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", required=True, help="BEIR folder")
    parser.add_argument("--output", required=True, help="collection folder to write")
    args = parser.parse_args()
    build(args.input, args.output)


if __name__ == "__main__":
    cli.run(main)
