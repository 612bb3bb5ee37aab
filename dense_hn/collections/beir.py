"""A BEIR folder.

``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``)
and ``qrels/SPLIT.tsv`` (see dense_hn.trec). A passage is title, blank and text, as BEIR's
own models read it; with ``{folder: FOLDER, titles: false}`` its text alone.

Source of the format: Thakur et al., arXiv 2104.08663, and the package beir.
"""

import logging
from pathlib import Path
from typing import Any

from dense_hn import DenseHNError, reading, trec
from dense_hn.collections.collection import Collection
from dense_hn.files import digest, require_file, require_folder
from dense_hn.ids import require_id
from dense_hn.names import require_known

log = logging.getLogger("dense_hn")

SPLITS = ("train", "dev", "test")


def read(value: Any) -> Collection:
    """Read a BEIR folder; documents and queries may be without text.

    Args:
        value: the folder, or a mapping as above.

    Raises:
        DenseHNError: a file or a field that is missing, an id that occurs twice or has
            white space, text that is no Unicode, a judgement of a document or a query that
            there is not.
    """
    source, with_titles = _parse(value)
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
    corpus, titled = _texts(documents, with_titles)
    for split, judged in qrels.items():
        trec.require_covered(judged, texts, paths[split], queries, "text")
        trec.require_known(judged, corpus, paths[split], documents)
    topics = {split: {q: texts[q] for q in judged} for split, judged in qrels.items()}
    return Collection(corpus=corpus, topics=topics, qrels=qrels, titled=titled)


def splits(value: Any) -> dict[str, bool]:
    """Split to whether it is judged, which it always is.

    Raises:
        DenseHNError: no such folder, or no qrels in it.
    """
    source, _ = _parse(value)
    found = {split: True for split in SPLITS if _qrels_file(source, split).exists()}
    if not found:
        raise DenseHNError(f"{source}: no qrels/train.tsv, dev.tsv or test.tsv in it")
    return found


def digests(value: Any) -> list[str]:
    """Digests of the files that :func:`read` reads."""
    source, _ = _parse(value)
    files = [source / "corpus.jsonl", source / "queries.jsonl"]
    files += sorted((source / "qrels").glob("*.tsv"))
    return [digest(require_file(path, "part of a BEIR folder")) for path in files]


def _parse(value: Any) -> tuple[Path, bool]:
    """The folder, and whether titles are read."""
    given = dict(value) if isinstance(value, dict) else {"folder": value}
    require_known(given, ("folder", "titles"), "beir", "key")
    folder, titles = given.get("folder"), given.get("titles", True)
    if not isinstance(folder, str | Path) or not isinstance(titles, bool):
        raise DenseHNError(
            f"beir: expected a path, got {value!r}; quote it, or give {{folder: PATH, titles: "
            "false}"
        )
    return require_folder(folder, "BEIR folder"), titles


def _qrels_file(source: Path, split: str) -> Path:
    return source / "qrels" / f"{split}.tsv"


def _texts(path: Path, with_titles: bool = True) -> tuple[dict[str, str], int]:
    """Id to title and text of every line, and how many have a title that is read."""
    texts: dict[str, str] = {}
    titled = 0
    for where, line in reading.lines(path, "part of a BEIR folder"):
        fields = reading.parsed(line, where)
        name, text = fields.get("_id"), fields.get("text")
        title = (fields.get("title") or "") if with_titles else ""
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
