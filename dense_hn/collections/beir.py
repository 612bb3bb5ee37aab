"""A BEIR folder.

``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``)
and ``qrels/SPLIT.tsv`` (a header, then ``query-id<TAB>corpus-id<TAB>score``). A passage
is title, blank and text, as BEIR's own models read it.

Source of the format: Thakur et al., arXiv 2104.08663, and the package beir.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from dense_hn import DenseHNError, trec
from dense_hn.collections.collection import Collection
from dense_hn.files import digest, require_file, require_folder

SPLITS = ("train", "dev", "test")


def read(source: str | Path) -> Collection:
    """Read a BEIR folder; documents and queries may be without text.

    Args:
        source: the folder.

    Raises:
        DenseHNError: a file or a field that is missing, an id that occurs twice or has
            white space, a judgement of a document or a query that there is not.
    """
    source = require_folder(source, "BEIR folder")
    corpus = _texts(source / "corpus.jsonl")
    texts = _texts(source / "queries.jsonl")
    qrels = {
        split: _judged(_qrels_file(source, split), texts, corpus)
        for split in splits(source)
    }
    topics = {split: {q: texts[q] for q in judged} for split, judged in qrels.items()}
    return Collection(corpus=corpus, topics=topics, qrels=qrels)


def splits(source: str | Path) -> dict[str, bool]:
    """Split to whether it is judged, which it always is.

    Raises:
        DenseHNError: no such folder, or no qrels in it.
    """
    source = require_folder(source, "BEIR folder")
    found = {split: True for split in SPLITS if _qrels_file(source, split).exists()}
    if not found:
        raise DenseHNError(f"{source}: no qrels/train.tsv, dev.tsv or test.tsv in it")
    return found


def digests(source: str | Path) -> list[str]:
    """Digests of the files that :func:`read` reads."""
    source = require_folder(source, "BEIR folder")
    files = [source / "corpus.jsonl", source / "queries.jsonl"]
    files += sorted((source / "qrels").glob("*.tsv"))
    return [digest(require_file(path, "part of a BEIR folder")) for path in files]


def _qrels_file(source: str | Path, split: str) -> Path:
    return Path(source) / "qrels" / f"{split}.tsv"


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


def _judged(path: Path, texts: dict[str, str], corpus: dict[str, str]) -> trec.Qrels:
    """The judgements of a split."""
    qrels: trec.Qrels = {}
    for where, qid, docid, score in _rows(path):
        if qid not in texts or docid not in corpus:
            kind, name = ("query", qid) if qid not in texts else ("document", docid)
            raise DenseHNError(
                f"{where}: {kind} {name!r} is not in {path.parents[1]}; remove the line, "
                "or fetch the collection anew"
            )
        if qrels.setdefault(qid, {}).setdefault(docid, score) != score:
            raise DenseHNError(f"{where}: {docid!r} is judged twice for query {qid!r}")
    return qrels


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
