"""The static hard negatives of a training: read, filtered, drawn from, refreshed."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path

from transformers import TrainerCallback, TrainerState

from dense_hn import trec
from dense_hn.encode import Vectors, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.mine import retrieve
from dense_hn.negatives import StaticNegatives
from dense_hn.train.batches import JointDataset
from dense_hn.train.joint_arguments import JointArguments
from dense_hn.train.supervision import Supervision

log = logging.getLogger("dense_hn")


class HardNegatives:
    """The runs of static hard negatives, filtered, and what is drawn from them."""

    def __init__(
        self,
        args: JointArguments,
        supervision: Supervision,
        corpus: Mapping[str, str],
        seed: int,
    ) -> None:
        """Read the runs.

        Raises:
            DenseHNError: a run with a docid that is not in the corpus; a topic for
                which no run has a negative.
        """
        self._args = args
        self._supervision = supervision
        self._seed = seed
        self._runs = []
        for path in args.negatives:
            run = trec.read_run(path)
            trec.require_known(run, corpus, path, args.corpus)
            self._runs.append(run)
        if self._runs:
            covered = {
                qid
                for qid, positives in supervision.excluded.items()
                for run in self._runs
                if run.get(qid, {}).keys() - positives
            }
            trec.require_covered(
                supervision.topics,
                covered,
                args.topics,
                " or ".join(args.negatives),
                "negatives",
            )
        for path, run in zip(args.negatives, self._runs, strict=True):
            self._look_through(run, path)

    def replace_last(self, run: trec.Run, name: str) -> float:
        """Put a run in the place of the last; the share of its hits that are new."""
        depth, old = self._args.negatives_depth, self._runs[-1]
        new = total = 0
        for qid, hits in run.items():
            now, before = (trec.ranked(h)[:depth] for h in (hits, old.get(qid, {})))
            new += len(set(now).difference(before))
            total += len(now)
        self._look_through(run, name)
        self._runs[-1] = run
        return new / total

    def sources(self) -> list[StaticNegatives]:
        """What is drawn from: all runs together, or one by one.

        A distilling loss draws only what the teacher scored.
        """
        args, supervision = self._args, self._supervision
        runs = self._runs
        if args.distils():
            teacher = supervision.teacher
            runs = [
                {
                    q: {d: s for d, s in run.get(q, {}).items() if d in teacher[q]}
                    for q in supervision.topics
                }
                for run in runs
            ]
        if not runs:
            return []
        together = len(args.negatives_per_query) == 1
        groups = [runs] if together else [[run] for run in runs]
        drawn = [
            StaticNegatives(
                group,
                supervision.excluded,
                args.negatives_depth,
                number,
                self._seed + place,
                args.negatives_skip,
            )
            for place, (group, number) in enumerate(
                zip(groups, args.negatives_per_query, strict=True)
            )
        ]
        without = sum(not any(q in one for one in drawn) for q in supervision.topics)
        if without:
            what = "queries left without a static hard negative"
            supervision.report.note(what, without)
        return drawn

    def _look_through(self, run: trec.Run, name: str) -> None:
        """Exclude what the filters suspect in a run, and note what its window skips."""
        skip, supervision = self._args.negatives_skip, self._supervision
        supervision.exclude(run, supervision.filter, name)
        source = f"{name}, ranks 1 to {skip}"
        for qid in supervision.topics:
            hits = run.get(qid, {})
            for docid in trec.ranked(hits)[:skip]:
                if supervision.qrels[qid].get(docid, 0) < 1:
                    supervision.report.drop(source, qid, docid, hits[docid], math.nan)


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
        self._supervision = supervision

    def on_step_end(self, args, state, control, model, **_) -> None:
        """Called by the Trainer; the batch that it has ready keeps its negatives."""
        every = self._args.refresh_steps
        if every and state.global_step % every == 0:
            self._refresh(model, state)

    def on_epoch_end(self, args, state, control, model, **_) -> None:
        """Called by the Trainer, before it draws from the next epoch."""
        every = self._args.refresh_epochs
        if every and round(state.epoch) % every == 0:
            self._refresh(model, state)

    def _refresh(self, model: DenseEncoder, state: TrainerState) -> None:
        if state.global_step >= state.max_steps:
            return
        matrix = encode_texts(model, list(self._corpus.values()), "passage")
        docids, here = list(self._corpus), Path("(in memory)")
        vectors = Vectors(docids, matrix, model.digest(), "", here)
        topics, qrels = self._supervision.topics, self._supervision.qrels
        depth = self._args.negatives_depth
        run = dict(retrieve(model, vectors, topics, depth, qrels))
        name = f"hits of step {state.global_step}"
        new = self._hard.replace_last(run, name)
        self._dataset.hard = self._hard.sources()
        log.info("negatives are now the %s: %.0f%% of them new", name, 100 * new)
