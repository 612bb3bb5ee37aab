"""Long documents as passages, each with a vector of its own.

    {of: {KIND: VALUE}, words: 60, overlap: 20}

A document D becomes the passages ``D#0``, ``D#1``, …, which a recipe trains on and searches,
and a document scores as the best of its passages. These ids, and that score, are those of
Pyserini's ``--max-passage`` (MaxP of arXiv 1905.09217).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from dense_hn import DenseHNError, trec
from dense_hn.collections.collection import Collection

# Between a document's id and the number of a passage, as Pyserini has it by default.
DELIMITER = "#"


FORM = "{of: {KIND: VALUE}, words: NUMBER, overlap: NUMBER}"


def parse(value: Any) -> tuple[str, Any, int, int]:
    """Kind and value of the documents' source, words of a passage, and of their overlap (0).

    Raises:
        DenseHNError: a value of another form, numbers out of range.
    """
    given = dict(value) if isinstance(value, dict) else {}
    of, words, overlap = (
        given.pop("of", None),
        given.pop("words", 0),
        given.pop("overlap", 0),
    )
    if given or not isinstance(of, dict) or len(of) != 1:
        raise DenseHNError(f"passages: expected {FORM}, got {value!r}")
    if not type(words) is type(overlap) is int or not 0 <= overlap < words:
        raise DenseHNError(
            f"passages: words is {words!r} and overlap {overlap!r}; give whole numbers, words "
            "from 1 on and an overlap below it"
        )
    ((kind, documents),) = of.items()
    return str(kind), documents, words, overlap


def cut(collection: Collection, words: int, overlap: int) -> Collection:
    """The same collection with passages in the place of documents.

    Args:
        collection: of documents. What is judged of one is judged of all its passages
            (:func:`best` says which of them is meant). Runs that it brings are left out, and
            counted.
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
            f"{docid}{DELIMITER}{number}": piece
            for number, piece in enumerate(_pieces(text.split(), words, overlap))
        }
        corpus |= pieces
        passages[docid] = list(pieces)
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
    )


def document(docid: str) -> str:
    """Whose passage this is; a document's own id as it is."""
    return docid.partition(DELIMITER)[0]


def starts(corpus: Mapping[str, str]) -> dict[str, str]:
    """The first passage of every document."""
    return {
        document(docid): text
        for docid, text in corpus.items()
        if docid.endswith(f"{DELIMITER}0")
    }


def by_document(scored: Mapping[str, float]) -> dict[str, float]:
    """What the best passage of each document has: of one topic's hits, or judgements."""
    highest: dict[str, float] = {}
    for docid, value in scored.items():
        name = document(docid)
        highest[name] = max(value, highest.get(name, value))
    return highest


def best(
    qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
) -> trec.Qrels:
    """Of the relevant passages of a document, the one alone that a run has highest.

    A judgement of a document does not say which of its passages answers; of those that do
    not, nothing can be learnt.

    Args:
        qrels: with relevant passages.
        run: with their scores; where it has none of a document's, all of these stay.

    Returns:
        The relevant ones that stay, with their levels.
    """
    kept: trec.Qrels = {}
    for qid, judged in qrels.items():
        hits, of_document = run.get(qid, {}), {}
        for docid in trec.positives(qrels, qid):
            of_document.setdefault(document(docid), []).append(docid)
        kept[qid] = {}
        for docids in of_document.values():
            scores = {docid: hits[docid] for docid in docids if docid in hits}
            for docid in trec.ranked(scores)[:1] or docids:
                kept[qid][docid] = judged[docid]
    return kept


def _pieces(text: list[str], words: int, overlap: int) -> Iterator[str]:
    """A text's passages, in their order: all of it where it is short."""
    step = words - overlap
    for start in range(0, max(1, len(text) - overlap), step):
        yield " ".join(text[start : start + words])
