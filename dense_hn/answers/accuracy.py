"""Top-k accuracy: the share of topics with an answer in their first k passages.

Written ``Answer@k``, in the place of an ir_measures name, which it has none of. Hits are
ordered as for all other measures, by score as trec_eval does; Pyserini's and DPR's scripts
take them in the file's order, which is the same where no scores of a topic tie.
"""

import math
import re
from collections.abc import Mapping, Sequence

from dense_hn import DenseHNError, trec
from dense_hn.answers.match import Finder

# As DPR's paper and Pyserini's pages report it.
DEFAULT = ("Answer@1", "Answer@5", "Answer@20", "Answer@100")
FAMILY = "Answer"


def is_accuracy(measure: str) -> bool:
    """Whether a measure is of this family, its cut right or wrong."""
    return re.match(r"\w*", measure)[0] == FAMILY


def cut(measure: str) -> int:
    """``Answer@20`` to 20.

    Raises:
        DenseHNError: a level, or no cut.
    """
    match = re.fullmatch(rf"{FAMILY}@([1-9]\d*)", measure, re.ASCII)
    if match is None:
        raise DenseHNError(
            f"measure {measure}: write {FAMILY}@k, k a number from 1, such as Answer@20"
        )
    return int(match[1])


def first_hits(
    run: trec.Run, topics: Mapping[str, object], depth: int
) -> dict[str, list[str]]:
    """The first docids of the topics that a run has, best first."""
    return {qid: trec.ranked(run[qid])[:depth] for qid in topics if qid in run}


def accuracy(
    first: Mapping[str, Sequence[str]],
    finders: Mapping[str, Finder],
    texts: Mapping[str, str],
    measures: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Measure to topic to 1 or 0, in the order of the topics; 0 where a run lacks one.

    Args:
        first: as :func:`first_hits` gives them.
        finders: of all topics.
        texts: of all docids in ``first``, as match.searchable makes them.
        measures: names, see :func:`cut`.
    """
    places = {}
    for qid, finder in finders.items():
        hits = enumerate(first.get(qid, ()))
        found = (place for place, docid in hits if finder.finds_in(texts[docid]))
        places[qid] = next(found, math.inf)
    return {
        measure: {qid: float(place < cut(measure)) for qid, place in places.items()}
        for measure in measures
    }


def answerable(
    qrels: trec.Qrels, finders: Mapping[str, Finder], texts: Mapping[str, str]
) -> int:
    """How many topics have an answer in a relevant passage at all.

    Args:
        qrels: judgements of all topics; 1 or more is relevant.
        finders: as in :func:`accuracy`.
        texts: of all relevant passages, as there.
    """
    return sum(
        any(finder.finds_in(texts[docid]) for docid in trec.positives(qrels, qid))
        for qid, finder in finders.items()
    )
