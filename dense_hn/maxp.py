"""Documents by their passages: ids, scores, and which passage is meant.

Passage n of document D is called ``D#n``, and a document scores as the best of its passages
(MaxP, arXiv 1905.09217): what Pyserini's ``--max-passage`` makes of a run.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dense_hn import trec

# As Pyserini has it by default.
DELIMITER = "#"


def document(docid: str) -> str:
    """Whose passage this is; a document's own id as it is."""
    return docid.partition(DELIMITER)[0]


def passage(docid: str, number: int) -> str:
    """The id of a document's passage, counted from 0."""
    return f"{docid}{DELIMITER}{number}"


def several(docids: Iterable[str]) -> list[str]:
    """Which documents these are several passages of, in their order."""
    counts = Counter(map(document, docids))
    return [name for name, number in counts.items() if number > 1]


def best_of(scored: Mapping[str, float]) -> dict[str, float]:
    """What the best passage of each document has: of one topic's hits, or judgements."""
    highest: dict[str, float] = {}
    for docid, value in scored.items():
        name = document(docid)
        highest[name] = max(value, highest.get(name, value))
    return highest


def of_documents(
    table: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, float]]:
    """A run, or qrels, of passages as one of their documents."""
    return {qid: best_of(scored) for qid, scored in table.items()}


def by_document(
    found: Iterable[tuple[str, Mapping[str, float]]],
) -> Iterator[tuple[str, dict[str, float]]]:
    """:func:`of_documents` of a run that comes one (qid, hits) after another."""
    return ((qid, best_of(scored)) for qid, scored in found)


def meant(
    qrels: Mapping[str, Mapping[str, int]],
    runs: Sequence[Mapping[str, Mapping[str, float]]],
) -> tuple[trec.Qrels, int]:
    """Of the relevant passages of a document, the one alone that a run has highest.

    A judgement of a document does not say which of its passages answers; of those that do
    not, nothing can be learnt.

    Args:
        qrels: with relevant passages.
        runs: with their scores. The first that has any passage of a document tells; where none
            has, all of these stay.

    Returns:
        The relevant ones that stay, with their levels; and of how many documents of several
        passages, summed over the topics, no run had one.
    """
    kept: trec.Qrels = {}
    untold = 0
    for qid in qrels:
        hits_of = [run.get(qid, {}) for run in runs]
        of_document: dict[str, list[str]] = {}
        for docid in trec.positives(qrels, qid):
            of_document.setdefault(document(docid), []).append(docid)
        kept[qid] = {}
        for docids in of_document.values():
            listed = ({d: hits[d] for d in docids if d in hits} for hits in hits_of)
            best = trec.ranked(next(filter(None, listed), {}))[:1]
            untold += len(docids) > 1 and not best
            for docid in best or docids:
                kept[qid][docid] = qrels[qid][docid]
    return kept, untold


def starts(corpus: Mapping[str, str]) -> dict[str, str]:
    """The first passage of every document, with an ellipsis where there are more."""
    return {
        name: f"{text} …" if passage(name, 1) in corpus else text
        for docid, text in corpus.items()
        for name in [document(docid)]
        if docid == passage(name, 0)
    }


def documents(corpus: Mapping[str, str], words: int | None = None) -> dict[str, str]:
    """The documents that these passages (docid to text) are all of, those of each in order.

    Words that a passage shares with the end of the one before it are taken once. White space
    becomes single blanks, but in a document of one passage.

    Args:
        corpus: the passages.
        words: of a document, after which its text may end.
    """
    passages: dict[str, list[str]] = {}
    for docid, text in corpus.items():
        passages.setdefault(document(docid), []).append(text)
    return {name: _joined(texts, words) for name, texts in passages.items()}


def _joined(texts: Sequence[str], most: int | None) -> str:
    if len(texts) == 1:
        return texts[0]
    words: list[str] = []
    before: list[str] = []
    for text in texts:
        if most is not None and len(words) >= most:
            break
        more = text.split()
        shared = min(len(before), len(more))
        # The first words alone tell of most.
        while shared and (
            before[-shared] != more[0] or before[-shared:] != more[:shared]
        ):
            shared -= 1
        words += more[shared:]
        before = more
    return " ".join(words)
