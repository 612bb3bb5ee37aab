"""Vectors of passages that know of their document, whose own vector is added to each.

    w_i = (v_i + weight · v) / (1 + weight)        v: of the document that passage i is of

scaled to length one again where the encoder's vectors are. A short passage does not say who and
where its text is about; the rest of its document does. The passages' language model smoothed with
their document's (Liu and Croft, CIKM 2002) is the same idea for counted words. The only passage of
a document keeps its vector.

Passages are called D#0, D#1, … (dense_hn.maxp), and those of a document stand together.
"""

from array import array
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import NoReturn

import numpy as np

from dense_hn import DenseHNError, maxp


def require_together(docids: Iterable[str]) -> int:
    """How many documents of several passages these are passages of.

    Raises:
        DenseHNError: those of a document do not stand one after another, in the order of
            their numbers.
    """
    # Their hashes take 8 bytes a document.
    names = array("q")
    several = 0
    for name, group in groupby(docids, maxp.document):
        passages = list(group)
        numbers = [docid.partition(maxp.DELIMITER)[2] for docid in passages]
        if len(passages) > 1:
            several += 1
            if not all(map(str.isdecimal, numbers)) or any(
                int(one) >= int(other) for one, other in pairwise(numbers)
            ):
                _refuse(name)
        names.append(hash(name))
    _, counts = np.unique(np.array(names, np.int64), return_counts=True)
    if (counts > 1).any():
        seen: set[str] = set()
        for name, _ in groupby(docids, maxp.document):
            if name in seen:
                _refuse(name)
            seen.add(name)
    return several


def _refuse(document: str) -> NoReturn:
    raise DenseHNError(
        f"document_weight: the passages of {document!r} do not stand one after another in the "
        "corpus, in the order of their numbers (D#0, D#1, …, D#10); sort it by document and number"
    )


def moved(cuts: Iterable[int], docids: Sequence[str]) -> list[int]:
    """Rows to cut a corpus at, each moved on to where no document is cut, in their order."""
    apart = []
    for row in cuts:
        while 0 < row < len(docids) and _same(docids[row - 1], docids[row]):
            row += 1
        apart.append(row)
    return apart


def add(
    vectors: np.ndarray, wholes: np.ndarray, weight: float, l2_norm: bool
) -> np.ndarray:
    """The vectors of passages with their documents' in them, [N, D] float32.

    Args:
        vectors: of N passages, [N, D] float32.
        wholes: of the document of each, likewise.
        weight: of the document, where the passage itself has one.
        l2_norm: whether vectors have length one, and get it again.
    """
    mixed = (vectors + weight * wholes) / (1 + weight)
    if l2_norm:
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    return mixed


def _same(one: str, other: str) -> bool:
    """Whether these are passages of one document."""
    return maxp.document(one) == maxp.document(other)
