"""What every training stage learns from: topics, judgements, negatives, a teacher."""

import logging
import math
from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from dense_hn import DenseHNError, maxp, trec
from dense_hn.false_negatives import Filter, Report, suspects

log = logging.getLogger("dense_hn")

TEACHER = "teacher"


@dataclass(kw_only=True)
class SupervisionArguments:
    """Which documents are relevant, and which are negatives or too suspicious to be."""

    topics: str = field(metadata={"help": "Training topics: TSV, TREC or JSON."})
    qrels: str = field(metadata={"help": "Qrels for them, TREC's or BEIR's."})
    relevance_level: int = field(
        default=1, metadata={"help": "Judgements from this level on are relevant."}
    )
    negatives: list[str] = field(
        default_factory=list,
        metadata={"help": "TREC runs for the training topics: static hard negatives."},
    )
    negatives_per_query: list[int] = field(
        default_factory=lambda: [1],
        metadata={
            "help": "Hard negatives drawn per query and epoch: one number for all runs "
            "together, or one for each run."
        },
    )
    negatives_depth: int = field(
        default=200, metadata={"help": "Hits of each run that are drawn from."}
    )
    negatives_skip: int = field(
        default=0,
        metadata={
            "help": "Best hits of each run (and of each step, in adore and dynamic) to leave out, "
            "as too suspicious."
        },
    )
    random_per_query: int = field(
        default=0,
        metadata={"help": "Documents of the whole corpus drawn per query and epoch."},
    )
    judged_only: bool = field(
        default=False,
        metadata={
            "help": "Negatives are only documents that are relevant to some training "
            "query. Otherwise those that none asks for, as all of a test's may be, are "
            "only ever pushed away, which tells where queries are many and documents few."
        },
    )
    positives: list[str] = field(
        default_factory=list,
        metadata={
            "help": "TREC runs that tell which passage of a relevant document (D#0, D#1, …) "
            "is meant: the one that the first run with any of them has highest. The "
            "document's others are neither relevant nor negatives."
        },
    )
    teacher: str | None = field(
        default=None,
        metadata={
            "help": "TREC run of a better judge: the drop_ filters then look at its "
            "scores, for every source of negatives, instead of each source's own; "
            "distil, where a stage has it, learns from them."
        },
    )
    drop_absolute_margin: float | None = field(
        default=None,
        metadata={
            "help": "Drop negatives that score above the query's best positive less "
            "this, as suspected false negatives. In the units of the scores, which "
            "differ between BM25 and a model; a relative margin has none."
        },
    )
    drop_relative_margin: float | None = field(
        default=None,
        metadata={
            "help": "The same, less this share of the positive's score (0.05: keep "
            "negatives of at most 95%% of it)."
        },
    )
    drop_max_score: float | None = field(
        default=None, metadata={"help": "Drop negatives that score above this."}
    )

    def __post_init__(self) -> None:
        if self.relevance_level < 1:
            raise DenseHNError(
                f"relevance_level is {self.relevance_level}; it starts at 1"
            )
        depth = self.negatives_depth if self.negatives else math.inf
        if not 0 <= self.negatives_skip < depth:
            raise DenseHNError(
                f"negatives_skip is {self.negatives_skip} and negatives_depth "
                f"{self.negatives_depth}: no rank lies between them"
            )
        numbers = self.negatives_per_query
        if len(numbers) not in (1, len(self.negatives)) or min(numbers) < 1:
            raise DenseHNError(
                f"negatives_per_query is {numbers}: give one number for the "
                f"{len(self.negatives)} runs together, or one for each, from 1"
            )
        if self.random_per_query < 0:
            raise DenseHNError(
                f"random_per_query is {self.random_per_query}; it starts at 0"
            )
        if self.teacher and not self.uses_teacher():
            raise DenseHNError(
                "teacher: nothing uses its scores; give distil, where the stage has it, or "
                "a drop_ filter such as drop_absolute_margin 0"
            )
        self.filter()

    def runs(self) -> list[str]:
        """All runs that it reads."""
        return [*self.negatives, *self.positives, *filter(None, [self.teacher])]

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
            DenseHNError: a file that cannot be read, a topic without a relevant document,
                a teacher's run for other topics, runs that tell of no relevant
                document which passage is meant.
        """
        # ``judged`` is what the qrels say, and ``qrels`` what of it is trained on.
        self.topics, self.judged = trec.read_judged(
            args.topics, args.qrels, args.relevance_level
        )
        self.qrels: trec.Qrels = self.judged
        # The runs that told which passages are meant, and the others of their documents.
        self._told: list[trec.Run] = []
        self.others: dict[str, set[str]] = {}
        if args.positives:
            self._choose(args)
        self.report = Report()
        self._filtered = bool(args.filter())
        # The filter of the sources' own scores: none where a teacher has spoken.
        self.filter = Filter() if args.teacher else args.filter()
        self.teacher: trec.Run = {}
        self.excluded = {
            qid: set(trec.positives(self.judged, qid)) for qid in self.topics
        }
        # The only documents that are negatives, if not all are.
        self._pool: set[str] | None = None
        if args.judged_only:
            relevant = (trec.positives(self.qrels, qid) for qid in self.topics)
            self._pool = set().union(*relevant)
        # What each source made suspicious: docids by query.
        self._suspects: dict[str, Mapping[str, AbstractSet[str]]] = {}
        if args.teacher:
            self.teacher = trec.read_run(args.teacher)
            trec.tell_uncovered(
                self.topics, self.teacher, args.topics, args.teacher, "hit"
            )
            self.exclude(self.without_others(self.teacher), args.filter(), TEACHER)

    def _choose(self, args: SupervisionArguments) -> None:
        """Let the passage alone of a relevant document be relevant that a run has highest."""
        self._told = [trec.read_run(path) for path in args.positives]
        asked = {qid: self.judged[qid] for qid in self.topics}
        self.qrels, untold = maxp.meant(asked, self._told)
        documents = sum(
            len(set(map(maxp.document, relevant))) for relevant in self.qrels.values()
        )
        where = " and ".join(args.positives)
        if untold and untold == documents:
            raise DenseHNError(
                f"{where}: no relevant passage of any topic of {args.topics} is listed, so that "
                "none is known to be meant; give a run of passages"
            )
        self.others = {
            qid: set(trec.positives(asked, qid)).difference(self.qrels[qid])
            for qid in self.topics
        }
        log.info(
            "%s: which passage is meant is known of %d of %d relevant documents; %d others are "
            "left out",
            *(where, documents - untold, documents),
            sum(map(len, self.others.values())),
        )

    def require_known(
        self, args: SupervisionArguments, corpus: Container[str], where: str
    ) -> None:
        """Check that every document of qrels, teacher and positives is in the corpus.

        The runs of positives have told what they had to, and are not kept any longer.

        Raises:
            DenseHNError: names the first that is not; ``where`` is the corpus's path.
        """
        trec.require_known(self.judged, corpus, args.qrels, where)
        trec.require_known(self.teacher, corpus, args.teacher, where)
        for run, path in zip(self._told, args.positives, strict=True):
            trec.require_known(run, corpus, path, where)
        self._told = []

    def without_others(self, run: trec.Run) -> trec.Run:
        """A run without the passages that are neither relevant nor negatives."""
        if not self.others:
            return run
        return {
            qid: {d: hits[d] for d in hits if d not in self.others.get(qid, ())}
            for qid, hits in run.items()
        }

    def pool(self, docids: Sequence[str]) -> Sequence[str]:
        """Those of these documents that negatives are taken from, in their order."""
        if self._pool is None:
            return docids
        return [docid for docid in docids if docid in self._pool]

    def exclude(
        self, run: Mapping[str, Mapping[str, float]], filter_: Filter, source: str
    ) -> None:
        """Let nothing be a negative, of any source, that this run makes look relevant."""
        if filter_:
            run = {qid: run[qid] for qid in self.topics if qid in run}
            found = suspects(run, self.qrels, filter_, source, self.report)
            self.leave_out(found, source)

    def leave_out(self, found: Mapping[str, AbstractSet[str]], source: str) -> None:
        """Let these documents, by query, be no negatives of any source."""
        self._suspects[source] = found
        for qid, docids in found.items():
            self.excluded[qid] |= docids

    def forget(self, source: str) -> None:
        """Let be negatives again what this source alone left out."""
        for qid in self._suspects.pop(source, {}):
            self.excluded[qid] = set(trec.positives(self.judged, qid)).union(
                *(found.get(qid, ()) for found in self._suspects.values())
            )

    def write_report(self, encoder_dir: str, corpus: Mapping[str, str]) -> None:
        """Write what was dropped beside an encoder folder, if there was any filter.

        Otherwise an older report there is removed.
        """
        folder = Path(encoder_dir)
        path = folder.with_name(f"{folder.name}.dropped.jsonl")
        summary = path.with_suffix(".txt")
        if self._filtered or self.report:
            first = self.report.write(path, self.topics, corpus)
            log.info("%s; see %s", first, summary)
        else:
            path.unlink(missing_ok=True)
            summary.unlink(missing_ok=True)
