"""False negatives: documents that are probably relevant, though nobody judged them so.

A document that scores near a query's positive, or above it, is often an unjudged
positive: of MS MARCO's unlabelled top hits, RocketQA (arXiv 2010.08191) found 70% to be
so. :class:`Filter` says which scores are suspicious, :func:`suspects` which
documents of a run are, and :class:`Report` keeps what was dropped and why.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dense_hn import DenseHNError, trec
from dense_hn.files import whole_file

EXAMPLES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Bounds on a negative's score; None where there is none. Checked when made."""

    # Drop what scores above the positive's score less this.
    absolute_margin: float | None = None
    # Drop what scores above the positive's score less this share of its size:
    # 0.05 keeps negatives of at most 95% of the positive's score.
    relative_margin: float | None = None
    # Drop what scores above this.
    max_score: float | None = None

    def __post_init__(self) -> None:
        for name in ("absolute_margin", "relative_margin", "max_score"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise DenseHNError(f"drop_{name} is {value}; it must be finite")

    def __bool__(self) -> bool:
        margins = (self.absolute_margin, self.relative_margin)
        return self.max_score is not None or margins != (None, None)

    def suspicious(self, score: Any, positive: Any) -> Any:
        """True where a document scores too high to be a negative.

        Args:
            score: of documents, an array or a tensor.
            positive: score of the query's best positive, of a shape that broadcasts to
                it; NaN where it is not known, and no margin applies.
        """
        found = score > math.inf
        if self.absolute_margin is not None:
            found = found | (score > positive - self.absolute_margin)
        if self.relative_margin is not None:
            found = found | (score > positive - self.relative_margin * abs(positive))
        if self.max_score is not None:
            found = found | (score > self.max_score)
        return found


class Report:
    """What was dropped as a suspected false negative: by source, query and document."""

    def __init__(self) -> None:
        self._dropped: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
        self._notes: dict[str, int] = {}

    def drop(
        self, source: str, qid: str, docid: str, score: float, positive: float
    ) -> None:
        """Remember a document; where it is dropped again, its last scores."""
        of_source = self._dropped.setdefault(source, {})
        of_source.setdefault(qid, {})[docid] = (score, positive)

    def drop_where(
        self,
        source: str,
        found: Tensor,
        qids: Sequence[str],
        docid: Callable[[int, int], str],
        scores: Tensor,
        positives: Tensor,
    ) -> None:
        """Remember a batch's documents.

        Args:
            source: where they come from.
            found: [B, M] True for what is dropped.
            qids: of the B rows.
            docid: (row, column) to the document's id.
            scores: [B, M].
            positives: [B] score of each query's positive.
        """
        best = positives.tolist()
        places = found.nonzero().tolist()
        for (row, column), score in zip(places, scores[found].tolist(), strict=True):
            self.drop(source, qids[row], docid(row, column), score, best[row])

    def note(self, what: str, number: int) -> None:
        """Say a number that a reader must know, such as queries left without hits; 0: no
        longer."""
        if number:
            self._notes[what] = number
        else:
            self._notes.pop(what, None)

    def dropped(self, source: str) -> dict[tuple[str, str], tuple[float, float]]:
        """``{(qid, docid): (score, positive's score)}`` of what a source dropped."""
        return {
            (qid, docid): scores
            for qid, documents in self._dropped.get(source, {}).items()
            for docid, scores in documents.items()
        }

    def state(self) -> dict[str, dict]:
        """All of it, as JSON."""
        return {"dropped": self._dropped, "notes": self._notes}

    def restore(self, state: Mapping[str, Mapping]) -> None:
        """Take up what :meth:`state` told, for what was dropped before a training stopped."""
        for source, queries in state["dropped"].items():
            for qid, documents in queries.items():
                for docid, scores in documents.items():
                    self.drop(source, qid, docid, *scores)
        self._notes |= state["notes"]

    def __bool__(self) -> bool:
        return bool(self._dropped or self._notes)

    def write(
        self, path: Path, topics: Mapping[str, str], corpus: Mapping[str, str]
    ) -> str:
        """Write every dropped document to ``path`` (JSONL), and a summary beside it.

        A line a query: ``{"qid", "dropped": [{"docid", "source", "score",
        "positive"}, …]}``, for all topics. The summary, with the suffix ``.txt``,
        counts them, and shows the most suspicious of each source with their text.

        Args:
            path: JSONL file to write.
            topics: the training topics.
            corpus: docid to text; a docid that it lacks is shown without.

        Returns:
            The summary's first line.
        """
        with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
            for qid in topics:
                dropped = [
                    {"docid": d, "source": source, "score": s, "positive": _number(p)}
                    for source, queries in self._dropped.items()
                    for d, (s, p) in queries.get(qid, {}).items()
                ]
                line = {"qid": qid, "dropped": dropped}
                file.write(f"{json.dumps(line, ensure_ascii=False)}\n")
        lines = self._summary(topics, corpus)
        with whole_file(path.with_suffix(".txt")) as partial:
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return lines[0]

    def _summary(
        self, topics: Mapping[str, str], corpus: Mapping[str, str]
    ) -> list[str]:
        pairs = {pair for source in self._dropped for pair in self.dropped(source)}
        touched = len({qid for qid, _ in pairs})
        first = f"{len(pairs)} suspected false negatives dropped, for {touched} of "
        lines = [f"{first}{len(topics)} queries"]
        lines += [f"{what}: {count}" for what, count in self._notes.items()]
        for source, queries in self._dropped.items():
            found = [(*scores, *ids) for ids, scores in self.dropped(source).items()]
            lines += ["", f"{source}: {len(found)}, for {len(queries)} queries"]
            lines += ["The most suspicious, furthest above the query's positive:"]
            # One a query, so that there are several to see.
            worst = {one[2]: one for one in sorted(found, key=_above, reverse=True)}
            examples = sorted(worst.values(), key=_above)[:EXAMPLES]
            for score, positive, qid, docid in examples:
                scores = f"scores {score:.4f}, the positive {positive:.4f}"
                lines += ["", f"{qid} {docid}: {scores}", f"  query: {topics[qid]}"]
                if docid in corpus:
                    lines += [f"  {docid}: {' '.join(corpus[docid].split())[:500]}"]
        return lines


def _above(found: tuple[float, float, str, str]) -> tuple:
    """Sorts by how far above the positive, known positives first."""
    score, positive, qid, docid = found
    unknown = math.isnan(positive)
    return unknown, -score if unknown else positive - score, qid, docid


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def suspects(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    filter_: Filter,
    source: str,
    report: Report,
) -> dict[str, set[str]]:
    """Documents of a run that are no known positives and score too high to be negatives.

    Args:
        run: ``{qid: {docid: score}}``; a query's positive is its best known positive
            in it. Without one no margin applies, and the query is counted.
        qrels: judgements; relevance 1 or more is a known positive.
        filter_: what is too high.
        source: the run's name in the report.
        report: where every one of them is noted.
    """
    found: dict[str, set[str]] = {}
    unknown = 0
    for qid, hits in run.items():
        positives = set(trec.positives(qrels, qid))
        best = max((hits[d] for d in positives if d in hits), default=math.nan)
        unknown += math.isnan(best)
        scores = np.fromiter(hits.values(), np.float64, len(hits))
        for docid in compress(hits, filter_.suspicious(scores, best)):
            if docid not in positives:
                found.setdefault(qid, set()).add(docid)
                report.drop(source, qid, docid, hits[docid], best)
    if unknown:
        report.note(f"{source}: queries without a positive, no margin applied", unknown)
    return found
