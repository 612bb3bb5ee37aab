"""Documents in JSON, as Pyserini's JsonCollection takes them.

``{"id": …, "contents": …}``, other fields left alone: in ``.json`` files one array of
them, or one after another on any number of lines; in other files one a line.

Source: Anserini's JsonCollection, which takes both from files of either name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dense_hn import DenseHNError, reading


def documents(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (``file:line``, docid, contents) of every document.

    Raises:
        DenseHNError: broken JSON, an empty line, an id or contents that are missing or
            of another type.
    """
    for where, document in objects(path):
        yield where, *_checked(document, where)


def objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (``file:line``, JSON object) of every document, whatever it holds.

    Raises:
        DenseHNError: broken JSON, an empty line.
    """
    if reading.kind(path) == ".json":
        return reading.objects(path, "corpus")
    lines = reading.lines(path, "corpus")
    return ((where, reading.parsed(line, where)) for where, line in lines)


def _checked(document: dict[str, Any], where: str) -> tuple[str, str]:
    docid, contents = document.get("id"), document.get("contents")
    # Anserini takes numbers for ids as they are written.
    if type(docid) is int:
        docid = str(docid)
    for key, value in (("id", docid), ("contents", contents)):
        if not isinstance(value, str) or not value.strip():
            beir = "_id" in document and "text" in document
            raise DenseHNError(
                f"{where}: {key!r} is missing, empty or no string; every document needs "
                '{"id": "…", "contents": "…"}'
                + ("; this is BEIR's: name its folder as beir:FOLDER" if beir else "")
            )
    return docid, contents
