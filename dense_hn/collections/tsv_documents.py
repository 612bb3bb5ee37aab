"""Documents in TSV, told apart by the first line.

* ``pid<TAB>text``: MS MARCO passages;
* ``docid<TAB>url<TAB>title<TAB>body``: MS MARCO documents;
* the header ``id<TAB>text<TAB>title``: DPR's Wikipedia passages, psgs_w100.tsv. Fields
  may be quoted, and the document is title, blank, text, which is how Pyserini's `auto`
  and `ance` join the two (its `dpr` encodes them as a pair).

Texts are taken as they are, MS MARCO's broken characters included.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from dense_hn import DenseHNError, reading

DPR = ["id", "text", "title"]
# By number of columns.
MS_MARCO = {2: "pid<TAB>text", 4: "docid<TAB>url<TAB>title<TAB>body"}
# Characters of a document that are kept.
LONGEST = 10_000


def documents(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (``file:line``, docid, text) of every document.

    Raises:
        DenseHNError: a first line of no known format, a line with another number of
            columns, broken quotes.
    """
    first = _first(path)
    if first == DPR:
        found = titled(path)
        return (
            (where, docid, f"{title} {text}".strip())
            for where, docid, title, text in found
        )
    if len(first) not in MS_MARCO:
        raise DenseHNError(
            f"{path}:1: {len(first)} columns, no known corpus; expected "
            f"{' or '.join(f'`{form}`' for form in MS_MARCO.values())} (MS MARCO), or "
            f"the header `{'<TAB>'.join(DPR)}` (DPR)"
        )
    return _ms_marco(path, len(first))


def has_titles(path: Path) -> bool:
    """Whether it is a file for :func:`titled`: DPR's."""
    return _first(path) == DPR


def _first(path: Path) -> list[str]:
    """The columns of the first line."""
    with reading.open_text(path, "corpus") as file:
        return file.readline().rstrip("\r\n").split("\t")


def _ms_marco(path: Path, number: int) -> Iterator[tuple[str, str, str]]:
    for where, line in reading.lines(path, "corpus"):
        docid, *texts = line.split("\t")
        if len(texts) + 1 != number:
            raise DenseHNError(
                f"{where}: {len(texts) + 1} columns; expected `{MS_MARCO[number]}`, as "
                "in the first line"
            )
        yield where, docid, texts[0] if number == 2 else ms_marco_document(*texts)


def ms_marco_document(url: str, title: str, body: str) -> str:
    """The text of an MS MARCO document, cut at 10,000 characters.

    Source: the released code of ANCE and of STAR and ADORE.
    """
    return f"{url}<sep>{title}<sep>{body}"[:LONGEST]


def titled(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield (``file:line``, docid, title, text) of every passage of DPR's.

    Raises:
        DenseHNError: as :func:`documents`.
    """
    with reading.open_text(path, "corpus") as file:
        # As DPR reads it.
        rows = csv.reader(file, delimiter="\t")
        next(rows)
        line = rows.line_num + 1
        try:
            for row in rows:
                where = f"{path}:{line}"
                if len(row) != len(DPR):
                    raise DenseHNError(
                        f"{where}: {len(row)} columns; expected `{'<TAB>'.join(DPR)}`"
                    )
                docid, text, title = row
                yield where, docid, title, text
                line = rows.line_num + 1
        except csv.Error as error:
            raise DenseHNError(
                f"{path}:{line}: {error}; is a quote never closed?"
            ) from None
