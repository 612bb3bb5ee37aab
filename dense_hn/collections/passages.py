"""Long documents cut into passages, each of which gets a vector of its own.

    {of: {KIND: VALUE}, words: 60, overlap: 20}

A document D of the other source becomes D#0, D#1, … (dense_hn.maxp).
"""

import logging
from collections.abc import Iterator
from typing import Any

from dense_hn import DenseHNError
from dense_hn.collections.collection import Collection
from dense_hn.maxp import DELIMITER, passage
from dense_hn.names import require_known

log = logging.getLogger("dense_hn")

KEYS = ("of", "words", "overlap")
FORM = "{of: {KIND: VALUE}, words: NUMBER, overlap: NUMBER (0)}"


def parse(value: Any) -> tuple[str, Any, int, int]:
    """Kind and value of the documents' source, words of a passage, and of their overlap (0).

    Raises:
        DenseHNError: a value of another form, numbers out of range.
    """
    given = dict(value) if isinstance(value, dict) else {}
    require_known(given, KEYS, "passages", "key")
    of, words, overlap = (
        given.get(key, default) for key, default in zip(KEYS, (None, 0, 0), strict=True)
    )
    if not isinstance(of, dict) or len(of) != 1 or not all(of.values()):
        raise DenseHNError(f"passages: expected {FORM}, got {value!r}")
    if not type(words) is type(overlap) is int or not 0 <= overlap < words:
        raise DenseHNError(
            f"passages: words is {words!r} and overlap {overlap!r} (0 where not given); give "
            "whole numbers, words from 1 on and an overlap below it"
        )
    ((kind, documents),) = of.items()
    return str(kind), documents, words, overlap


def cut(collection: Collection, words: int, overlap: int) -> Collection:
    """The same collection with passages in the place of documents.

    Args:
        collection: of documents. What is judged of one is judged of all its passages
            (maxp.meant says which of them is meant). White space becomes single
            blanks. Runs that it brings are left out, and counted.
        words: of a passage, at most.
        overlap: words that a passage shares with the one before it; fewer.

    Raises:
        DenseHNError: a document's id with a ``#``.
    """
    corpus: dict[str, str] = {}
    passages: dict[str, list[str]] = {}
    for docid, text in collection.corpus.items():
        if DELIMITER in docid:
            raise DenseHNError(
                f"passages: docid {docid!r} has a {DELIMITER}, which tells a passage's number "
                "from its document; give the documents other ids"
            )
        pieces = {
            passage(docid, number): piece
            for number, piece in enumerate(_pieces(text.split(), words, overlap))
        }
        corpus |= pieces
        passages[docid] = list(pieces)
    log.info("%d passages of %d documents", len(corpus), len(collection.corpus))
    left_out = collection.left_out.copy()
    for runs in collection.runs.values():
        left_out["runs, which are of whole documents"] += len(runs)
    return Collection(
        corpus=corpus,
        topics=collection.topics,
        qrels={
            split: {
                qid: {
                    name: level
                    for docid, level in judged.items()
                    for name in passages.get(docid, [docid])
                }
                for qid, judged in qrels.items()
            }
            for split, qrels in collection.qrels.items()
        },
        left_out=left_out,
        titled=collection.titled,
    )


def _pieces(text: list[str], words: int, overlap: int) -> Iterator[str]:
    """A text's passages, in their order: all of it where it is short."""
    step = words - overlap
    for start in range(0, max(1, len(text) - overlap), step):
        yield " ".join(text[start : start + words])
