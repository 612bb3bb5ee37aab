"""The static hard negatives of a training: read, filtered, drawn from, refreshed."""

import logging
import math
import shutil
from collections.abc import Container, Mapping
from pathlib import Path

from transformers import TrainerCallback, TrainerState, TrainingArguments

from dense_hn import DenseHNError, costs, provenance, ranks, trec
from dense_hn.collections.corpus import Corpus, read_corpus
from dense_hn.encode import encode_in_memory, encode_some
from dense_hn.encoder import DenseEncoder
from dense_hn.mine import retrieve
from dense_hn.negatives import RandomNegatives, StaticNegatives
from dense_hn.train.batches import JointDataset
from dense_hn.train.joint_arguments import JointArguments
from dense_hn.train.supervision import Supervision, SupervisionArguments

log = logging.getLogger("dense_hn")

# Runs of refreshed negatives in a training's own folder: PREFIX, step, .txt.
PREFIX = "negatives-"


def material(
    args: SupervisionArguments, seed: int, **kwargs: bool
) -> tuple[Supervision, Corpus, "HardNegatives", RandomNegatives]:
    """Read what queries and passages are trained on together, and check that it belongs together.

    Args:
        args: with a corpus.
        seed: of the draws.
        kwargs: ``alone`` and ``scored_only`` of :class:`HardNegatives`.

    Raises:
        DenseHNError: a file that cannot be read, a docid that is not in the corpus.
    """
    supervision = Supervision(args)
    corpus = read_corpus(args.corpus)
    supervision.require_known(args, corpus, args.corpus)
    provenance.tell_of_another_corpus(args.runs(), corpus.digest, args.corpus)
    hard = HardNegatives(args, supervision, corpus, args.corpus, seed, **kwargs)
    random = RandomNegatives(
        supervision.pool(corpus.docids),
        supervision.excluded,
        args.random_per_query,
        seed,
    )
    return supervision, corpus, hard, random


class HardNegatives:
    """The runs of static hard negatives, filtered, and what is drawn from them."""

    def __init__(
        self,
        args: SupervisionArguments,
        supervision: Supervision,
        corpus: Container[str],
        where: str,
        seed: int,
        *,
        alone: bool = False,
        scored_only: bool = False,
    ) -> None:
        """Read the runs.

        Args:
            args: names and windows of the runs.
            supervision: topics, and what they exclude.
            corpus: all docids.
            where: they are from, for messages.
            seed: of the draws.
            alone: whether there are no other negatives.
            scored_only: draw only what the teacher scored.

        Raises:
            DenseHNError: a run with a docid that is not in the corpus.
        """
        self._args = args
        self._alone = alone
        self._supervision = supervision
        self._seed = seed
        self._scored_only = scored_only
        self._runs = []
        for path in args.negatives:
            run = trec.read_run(path)
            trec.require_known(run, corpus, path, where)
            self._runs.append(self._of_pool(run))
        self._names = list(args.negatives)
        for path, run in zip(self._names, self._runs, strict=True):
            self._look_through(run, path)

    def replace_last(self, run: trec.Run, name: str) -> float:
        """Put a run in the place of the last; the share of its hits that are new."""
        run = self._of_pool(run)
        depth, old = self._args.negatives_depth, self._runs[-1]
        new = total = 0
        for qid, hits in run.items():
            now, before = (trec.ranked(h)[:depth] for h in (hits, old.get(qid, {})))
            new += len(set(now).difference(before))
            total += len(now)
        for source in (self._names[-1], self._skipped(self._names[-1])):
            self._supervision.forget(source)
        self._look_through(run, name)
        self._runs[-1], self._names[-1] = run, name
        # A training that has begun goes on with queries that have none left.
        self._alone = False
        return new / total

    def sources(self) -> list[StaticNegatives]:
        """What is drawn from: all runs together, or one by one.

        Raises:
            DenseHNError: no topic has negatives here, or, where there are no others, a
                topic has none.
        """
        if not self._runs:
            return []
        args, supervision = self._args, self._supervision
        excluded = supervision.excluded
        if self._scored_only:
            teacher = supervision.teacher
            excluded = {
                qid: excluded[qid].union(
                    *(run.get(qid, {}).keys() - told.keys() for run in self._runs)
                )
                for qid in supervision.topics
                for told in [teacher.get(qid, {})]
            }
        together = len(args.negatives_per_query) == 1
        groups = [self._runs] if together else [[run] for run in self._runs]
        drawn = [
            StaticNegatives(
                group, excluded, args.negatives_depth, number, self._seed + place
            )
            for place, (group, number) in enumerate(
                zip(groups, args.negatives_per_query, strict=True)
            )
        ]
        covered = {q for q in supervision.topics if any(q in one for one in drawn)}
        where = " or ".join(self._names)
        about = (supervision.topics, covered, args.topics, where, "negatives")
        if self._alone:
            trec.require_covered(*about)
        without = trec.tell_uncovered(*about)
        supervision.report.note("queries without a hard negative", without)
        return drawn

    def _of_pool(self, run: trec.Run) -> trec.Run:
        run = self._supervision.without_others(run)
        if not self._args.judged_only:
            return run
        pool = self._supervision.pool
        return {
            qid: {docid: hits[docid] for docid in pool(hits)}
            for qid, hits in run.items()
        }

    def _skipped(self, name: str) -> str:
        """What the best hits of a run are called in the report."""
        return f"{name}, ranks 1 to {self._args.negatives_skip}"

    def _look_through(self, run: trec.Run, name: str) -> None:
        """Leave out what the filters suspect in a run, and its best hits if asked to."""
        skip, supervision = self._args.negatives_skip, self._supervision
        supervision.exclude(run, supervision.filter, name)
        if not skip:
            return
        source, found = self._skipped(name), {}
        for qid in supervision.topics:
            hits, judged = run.get(qid, {}), supervision.qrels[qid]
            best = trec.ranked(hits)[:skip]
            found[qid] = {docid for docid in best if judged.get(docid, 0) < 1}
            for docid in found[qid]:
                supervision.report.drop(source, qid, docid, hits[docid], math.nan)
        supervision.leave_out(found, source)


class Refresh(TrainerCallback):
    """Mines static hard negatives anew with the model in training."""

    def __init__(
        self,
        args: JointArguments,
        hard: HardNegatives,
        dataset: JointDataset,
        corpus: Mapping[str, str],
        supervision: Supervision,
    ) -> None:
        self._args = args
        self._hard = hard
        self._dataset = dataset
        self._corpus = corpus
        # Of the first hits in the whole corpus, few may be left.
        self._pool = supervision.pool(corpus) if args.judged_only else None
        self._supervision = supervision

    def on_train_begin(self, args, state, control, model, **_) -> None:
        """Called by the Trainer; a resumed training takes up its last negatives.

        The checkpoint at an epoch's end may be older than what was to be mined then.

        Raises:
            DenseHNError: they are not beside the checkpoint.
        """
        every = self._args.refresh_steps or self._args.refresh_epochs
        done = state.global_step if self._args.refresh_steps else int(state.epoch or 0)
        if not args.resume_from_checkpoint or done < every:
            return
        folder = Path(args.resume_from_checkpoint).parent
        steps = {
            int(path.stem.removeprefix(PREFIX)): path
            for path in folder.glob(f"{PREFIX}*.txt")
        }
        now = state.global_step
        if self._args.refresh_epochs and now not in steps and self._due(state):
            self._refresh(args, model, state)
            return
        step = max((s for s in steps if s <= now), default=None)
        if step is None:
            raise DenseHNError(
                f"{args.resume_from_checkpoint}: no {PREFIX}STEP.txt beside it, the "
                "negatives that this training had mined; resume from its own folder"
            )
        own = Path(args.output_dir) / steps[step].name
        if state.is_world_process_zero and not own.exists():
            # It goes on from checkpoints of its own, if it is stopped again.
            shutil.copy(steps[step], own)
        ranks.wait()
        self._use(trec.read_run(own), step)

    def on_step_end(self, args, state, control, model, **_) -> None:
        """Called by the Trainer; the batch that it has ready keeps its negatives."""
        every = self._args.refresh_steps
        if every and state.global_step % every == 0:
            self._refresh(args, model, state)

    def on_epoch_end(self, args, state, control, model, **_) -> None:
        """Called by the Trainer, before it draws from the next epoch."""
        if self._args.refresh_epochs and self._due(state):
            self._refresh(args, model, state)

    def _due(self, state: TrainerState) -> bool:
        """Whether so many epochs are over, and no part of another."""
        epochs = round(state.epoch)
        ended = math.isclose(state.epoch, epochs, abs_tol=1e-9)
        return ended and epochs % self._args.refresh_epochs == 0

    def _refresh(
        self, args: TrainingArguments, model: DenseEncoder, state: TrainerState
    ) -> None:
        if state.global_step >= state.max_steps:
            return
        with costs.part("refresh"):
            self._mine(args, model, state)

    def _mine(
        self, args: TrainingArguments, model: DenseEncoder, state: TrainerState
    ) -> None:
        step = state.global_step
        if self._pool is None:
            vectors = encode_in_memory(model, self._corpus)
        else:
            vectors = encode_some(model, self._corpus, self._pool)
        topics, qrels = self._supervision.topics, self._supervision.qrels
        depth = self._args.negatives_depth
        run = dict(retrieve(model, vectors, topics, depth, qrels))
        path = Path(args.output_dir) / f"{PREFIX}{step}.txt"
        if state.is_world_process_zero:
            trec.write_run(path, run, "own")
        ranks.wait()
        # Rounded, as a training that is stopped finds them.
        self._use(trec.read_run(path), step)

    def _use(self, run: trec.Run, step: int) -> None:
        name = f"hits of step {step}"
        new = self._hard.replace_last(run, name)
        self._dataset.hard = self._hard.sources()
        log.info("negatives are now the %s: %.0f%% of them new", name, 100 * new)
