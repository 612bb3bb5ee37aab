"""A BEIR folder.

``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``)
and ``qrels/SPLIT.tsv`` (see dense_hn.trec). A passage is title, blank and text, as BEIR's
own models read it.

Source of the format: Thakur et al., arXiv 2104.08663, and the package beir.
"""

import logging
from pathlib import Path

from dense_hn import DenseHNError, reading, trec
from dense_hn.collections.collection import Collection
from dense_hn.files import digest, require_file, require_folder
from dense_hn.ids import require_id

log = logging.getLogger("dense_hn")

SPLITS = ("train", "dev", "test")


def read(source: str | Path) -> Collection:
    """Read a BEIR folder; documents and queries may be without text.

    Args:
        source: the folder.

    Raises:
        DenseHNError: a file or a field that is missing, an id that occurs twice or has
            white space, text that is no Unicode, a judgement of a document or a query that
            there is not.
    """
    source = require_folder(source, "BEIR folder")
    for path in sorted((source / "qrels").glob("*.tsv")):
        if path.stem not in SPLITS:
            log.warning(
                "%s: not read: the splits of a BEIR folder are %s; rename it, or name its "
                "files (files: {corpus: …, SPLIT: [TOPICS, QRELS], …})",
                *(path, ", ".join(SPLITS)),
            )
    queries, documents = source / "queries.jsonl", source / "corpus.jsonl"
    paths = {split: _qrels_file(source, split) for split in splits(source)}
    qrels = {split: trec.read_qrels(path) for split, path in paths.items()}
    texts, _ = _texts(queries)
    corpus, titled = _texts(documents)
    for split, judged in qrels.items():
        trec.require_covered(judged, texts, paths[split], queries, "text")
        trec.require_known(judged, corpus, paths[split], documents)
    topics = {split: {q: texts[q] for q in judged} for split, judged in qrels.items()}
    return Collection(corpus=corpus, topics=topics, qrels=qrels, titled=titled)


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


def _texts(path: Path) -> tuple[dict[str, str], int]:
    """Id to title and text of every line, and how many have a title."""
    texts: dict[str, str] = {}
    titled = 0
    for where, line in reading.lines(path, "part of a BEIR folder"):
        fields = reading.parsed(line, where)
        name, text = fields.get("_id"), fields.get("text")
        title = fields.get("title") or ""
        if not all(isinstance(value, str) for value in (name, text, title)):
            raise DenseHNError(
                f'{where}: expected {{"_id": "…", "text": "…"}} with strings'
            )
        require_id(name, "_id", where)
        if name in texts:
            raise DenseHNError(f"{where}: _id {name!r} occurs twice; keep one line")
        texts[name] = f"{title} {text}".strip()
        reading.require_unicode(texts[name], where)
        titled += bool(title.strip())
    return texts, titled
