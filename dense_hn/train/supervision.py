"""What every training stage learns from: topics, judgements, a teacher, and doubts."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dense_hn import DenseHNError, trec
from dense_hn.false_negatives import Filter, Report, suspects
from dense_hn.train.evaluation import EvaluationArguments

log = logging.getLogger("dense_hn")

TEACHER = "teacher"


@dataclass(kw_only=True)
class SupervisionArguments(EvaluationArguments):
    """Which documents are relevant, and which are too suspicious to be negatives."""

    topics: str = field(metadata={"help": "Training topics, TSV."})
    qrels: str = field(metadata={"help": "TREC qrels for them."})
    teacher: str | None = field(
        default=None,
        metadata={
            "help": "TREC run whose scores the drop_ filters look at, for every source "
            "of negatives; without it, each looks at its own scores."
        },
    )
    drop_absolute_margin: float | None = field(
        default=None,
        metadata={
            "help": "Drop negatives that score above the query's best positive less "
            "this, as suspected false negatives."
        },
    )
    drop_relative_margin: float | None = field(
        default=None,
        metadata={
            "help": "The same, less this share of the positive's score (0.05: keep "
            "negatives of at most 95% of it)."
        },
    )
    drop_max_score: float | None = field(
        default=None, metadata={"help": "Drop negatives that score above this."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher and not self.uses_teacher():
            raise DenseHNError(
                "teacher: nothing uses its scores; give a drop_ filter as well, such "
                "as drop_absolute_margin 0"
            )
        self.filter()

    def uses_teacher(self) -> bool:
        """Whether anything here looks at the teacher's scores."""
        return bool(self.filter())

    def filter(self) -> Filter:
        """The drop_ arguments."""
        return Filter(
            absolute_margin=self.drop_absolute_margin,
            relative_margin=self.drop_relative_margin,
            max_score=self.drop_max_score,
        )


class Supervision:
    """Topics and qrels as read, and what no source may draw as a negative."""

    def __init__(self, args: SupervisionArguments) -> None:
        """Read the files, and look through the teacher's run.

        Raises:
            DenseHNError: a file that cannot be read, a topic without a relevant document
                or, with a teacher, that the teacher's run lacks.
        """
        self.topics, self.qrels = trec.read_judged(
            args.topics, args.qrels, args.relevance_level
        )
        self.report = Report()
        self._filtered = bool(args.filter())
        # The filter of the sources' own scores: none where a teacher has spoken.
        self.filter = Filter() if args.teacher else args.filter()
        self.teacher: trec.Run = {}
        self.excluded = {
            qid: set(trec.positives(self.qrels, qid)) for qid in self.topics
        }
        if args.teacher:
            self.teacher = trec.read_run(args.teacher)
            trec.require_covered(
                self.topics, self.teacher, args.topics, args.teacher, "hit"
            )
            self.exclude(self.teacher, args.filter(), TEACHER)

    def exclude(
        self, run: Mapping[str, Mapping[str, float]], filter_: Filter, source: str
    ) -> None:
        """Let nothing be a negative, of any source, that this run makes look relevant."""
        if not filter_:
            return
        run = {qid: run[qid] for qid in self.topics if qid in run}
        found = suspects(run, self.qrels, filter_, source, self.report)
        for qid, docids in found.items():
            self.excluded[qid] |= docids

    def write_report(self, encoder_dir: str, corpus: Mapping[str, str]) -> None:
        """Write what was dropped beside an encoder folder, if there was any filter."""
        if not self._filtered and not self.report:
            return
        folder = Path(encoder_dir)
        path = folder.with_name(f"{folder.name}.dropped.jsonl")
        log.info("%s; see %s", self.report.write(path, self.topics, corpus), path)
