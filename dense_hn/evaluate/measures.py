"""Measures under the names that ir_measures gives them, with trec_eval's values.

A name is ``FAMILY``, ``FAMILY@CUT``, ``FAMILY(rel=LEVEL)`` or ``FAMILY(rel=LEVEL)@CUT``:
``RR@10``, ``MAP``, ``R(rel=2)@1000``. Judgements of the level (1 if none is given) or
more are relevant. Values are those of ``trec_eval -c -l LEVEL``:

* The mean is over all topics of the qrels. A topic that the run lacks counts with 0, and
  so does one for which nothing is judged relevant. Topics without judgements are ignored.
* Documents that are not judged are not relevant; nor are those with a negative grade.
* Documents are ordered by their score as a 32-bit float, ties by docid, descending. The
  file's ranks and the order of its lines are ignored.

MS MARCO's own script gives the same RR@10 (its MRR @10) where no scores of a topic tie:
it goes by the file's ranks, so it orders ties as they were written, and it takes every
document of the qrels for relevant, whatever the grade.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dense_hn import DenseHNError, trec
from dense_hn.names import unknown

log = logging.getLogger("dense_hn")

DEFAULT = ("RR@10", "nDCG@10", "R@100", "R@1000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What pytrec_eval calls a family, and what its name may hold."""

    # Without a cut; None where it needs one.
    whole: str | None = None
    # Before the cut; None where pytrec_eval has no cut.
    cut: str | None = None
    # Why it has no level, where it has none.
    no_level: str = ""


FAMILIES = {
    "RR": Family(whole="recip_rank"),
    "nDCG": Family(
        whole="ndcg", cut="ndcg_cut", no_level="takes the grades as they are"
    ),
    "R": Family(cut="recall"),
    "P": Family(cut="P"),
    "MAP": Family(whole="map", cut="map_cut"),
    "AP": Family(whole="map", cut="map_cut"),
    "Success": Family(cut="success"),
    # Not pytrec_eval's: see judged_share.
    "Judged": Family(no_level="counts what is judged, whatever the grade"),
}


@dataclass(frozen=True, slots=True)
class Measure:
    """A name, taken apart."""

    family: str
    # Judgements from it on are relevant.
    level: int
    # Hits of a topic that are looked at; None for all.
    cut: int | None

    def theirs(self) -> str:
        """The measure in pytrec_eval's results, before a cut that it does not know."""
        family = FAMILIES[self.family]
        if self.cut is None or family.cut is None:
            return family.whole
        return f"{family.cut}_{self.cut}"


def parse(name: str) -> Measure:
    """``R(rel=2)@100`` to ``Measure("R", 2, 100)``.

    Raises:
        DenseHNError: an unknown measure, a level or a missing cut that makes no sense.
    """
    match = re.fullmatch(
        r"(\w+)(?:\(rel=([1-9]\d*)\))?(?:@([1-9]\d*))?", name, re.ASCII
    )
    if match is None:
        raise DenseHNError(
            f"unknown measure {name!r}; write FAMILY(rel=LEVEL)@CUT, both numbers from "
            "1 and each part if wanted, such as RR@10, MAP, R(rel=2)@100"
        )
    family, level, cut = match.groups()
    if family == "Answer":
        raise DenseHNError(
            f"measure {name}: it needs answers, which `python -m dense_hn.evaluate "
            "--answers FILE --corpus PATH` takes; leave it out here"
        )
    if family not in FAMILIES:
        raise DenseHNError(unknown("measure", family, FAMILIES))
    if level and FAMILIES[family].no_level:
        raise DenseHNError(
            f"measure {name}: {family} {FAMILIES[family].no_level}; leave out "
            f"(rel={level})"
        )
    if cut is None and FAMILIES[family].whole is None:
        raise DenseHNError(f"measure {name}: it needs a cut, such as {name}@10")
    return Measure(family, int(level or 1), int(cut) if cut else None)


def per_query(
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Measure to topic of the qrels to value, both in the order given.

    Args:
        qrels: judgements.
        run: docid to score, by topic.
        names: measures.

    Raises:
        DenseHNError: as :func:`parse`.
    """
    import pytrec_eval

    measures = {name: parse(name) for name in names}
    hits = {qid: run[qid] for qid in qrels if qid in run}
    asked: dict[int, set[str]] = {}
    for measure in measures.values():
        if measure.family != "Judged":
            asked.setdefault(measure.level, set()).add(measure.theirs())
    scored = {
        level: pytrec_eval.RelevanceEvaluator(
            qrels, theirs, relevance_level=level
        ).evaluate(hits)
        for level, theirs in asked.items()
    }
    values = {}
    for name, measure in measures.items():
        if measure.family == "Judged":
            found = {q: judged_share(qrels[q], hits[q], measure.cut) for q in hits}
        else:
            theirs = measure.theirs()
            found = {q: row[theirs] for q, row in scored[measure.level].items()}
        if measure.family == "RR" and measure.cut:
            # trec_eval has no cut for it: 1/rank is below 1/cut where rank is above cut.
            found = {q: v if v >= 1 / measure.cut else 0.0 for q, v in found.items()}
        values[name] = {qid: found.get(qid, 0.0) for qid in qrels}
    return values


def judged_share(
    judged: Mapping[str, int], hits: Mapping[str, float], cut: int
) -> float:
    """Share of a topic's first ``cut`` hits (of all, if there are fewer) with a judgement.

    As ir_measures' Judged@k, but that ties are ordered as trec_eval does.
    """
    first = trec.ranked(hits)[:cut]
    return sum(docid in judged for docid in first) / len(first)


def tell_without_relevant(
    qrels: Mapping[str, Mapping[str, int]], names: Sequence[str]
) -> None:
    """Say how many topics have no judgement of a measure's level, and warn if all; and
    which measures take all grades for one, where there are several.

    Args:
        qrels: judgements.
        names: measures.

    Raises:
        DenseHNError: as :func:`parse`.
    """
    levels: dict[int, list[str]] = {}
    for name in names:
        measure = parse(name)
        if measure.family != "Judged":
            levels.setdefault(measure.level, []).append(name)
    highest = max(
        (max(grades.values(), default=0) for grades in qrels.values()), default=0
    )
    # Those who say a level know that there are several.
    counted = [
        name
        for name in levels.get(1, ())
        if "(" not in name and not FAMILIES[parse(name).family].no_level
    ]
    if highest > 1 and counted:
        log.info(
            "judgements go up to %d, and from 1 on all are relevant in %s; another level is "
            "said like R(rel=2)@100",
            *(highest, ", ".join(counted)),
        )
    for level, those in levels.items():
        without = [qid for qid, grades in qrels.items() if max(grades.values()) < level]
        if without:
            log.log(
                logging.WARNING if len(without) == len(qrels) else logging.INFO,
                "%d of %d topics have no document judged %d or more, such as %r; they "
                "count with 0 in %s",
                *(len(without), len(qrels), level, without[0], ", ".join(those)),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A run's values."""

    name: str
    # Topics of the qrels that the run lacks.
    missing: int
    # Topics of the run that the qrels lack.
    unjudged: int
    # As per_query's.
    values: dict[str, dict[str, float]]


def score(
    name: str,
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
    named_by: str = "qrels",
) -> Scored:
    """Score a run, and say which topics are in the run or in the qrels alone.

    Args:
        name: of the run.
        qrels: as in :func:`per_query`.
        run: as there.
        names: as there.
        named_by: what ``qrels`` were made of, for messages: qrels, or answers, where they
            say no more than what is asked.

    Raises:
        DenseHNError: as :func:`parse`; a run without any judged topic.
    """
    what = {"qrels": "judged", "answers": "answered"}[named_by]
    missing = [qid for qid in qrels if qid not in run]
    unjudged = [qid for qid in run if qid not in qrels]
    if len(missing) == len(qrels):
        raise DenseHNError(
            f"{name}: none of the {len(qrels)} {what} topics is in the run; name "
            f"the run and the {named_by} of the same topics"
        )
    if missing:
        log.warning(
            "%s: %d of %d %s topics are not in the run, such as %r; they count with 0",
            *(name, len(missing), len(qrels), what, missing[0]),
        )
    if unjudged:
        log.info(
            "%s: %d of %d topics of the run are not %s, such as %r; they are ignored",
            *(name, len(unjudged), len(run), what, unjudged[0]),
        )
    return Scored(
        name=name,
        missing=len(missing),
        unjudged=len(unjudged),
        values=per_query(qrels, run, names),
    )
