"""Ids of topics and documents: what one may be, and files that list them."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dense_hn import DenseHNError, reading

# What ends a string for one program or another, is no character, or is not seen.
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")


def require_id(name: str, what: str, where: str) -> None:
    """Refuse an id that files with columns cannot hold; ``what`` it is, and ``where``."""
    if name.split() != [name] or CONTROL.search(name):
        raise DenseHNError(
            f"{where}: {what} {name[:80]!r} is empty or has white space or control "
            "characters, which qrels and runs cannot hold; rename it"
        )


def require_from_one(number: int, name: str) -> None:
    """Refuse a count below 1; ``name`` it has on the command line."""
    if number < 1:
        raise DenseHNError(f"--{name} is {number}; it starts at 1")


def require_columns(line: str, where: str) -> None:
    """Refuse control characters in a line of ids and numbers."""
    if not line.isprintable() and CONTROL.search(line):
        raise DenseHNError(f"{where}: a control character in it; remove it")


def read_docids(path: str | Path, what: str) -> Iterator[str]:
    """Read docids, one a line, stripped at the end: Pyserini's ``docid`` of an index.

    Args:
        path: the file.
        what: what it is, for messages.

    Raises:
        DenseHNError: as reading.open_text; a docid that is empty or has white space, a
            file with no docid.
    """
    number = 0
    with reading.open_text(path, what) as file:
        for number, line in enumerate(file, 1):
            docid = line.rstrip()
            require_id(docid, "docid", f"{path}:{number}")
            yield docid
    if not number:
        raise DenseHNError(f"{path}: no docid in this file")


def write_docids(path: str | Path, docids: Iterable[str]) -> None:
    """Write docids, one a line, as :func:`read_docids` and Pyserini read them."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{docid}\n" for docid in docids)
