"""Evaluation while training: real retrieval for dev topics, the best weights kept."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

import numpy as np
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainingArguments,
)

from dense_hn import DenseHNError, trec
from dense_hn.collections.corpus import Corpus
from dense_hn.encode import Vectors, encode_in_memory
from dense_hn.encoder import DenseEncoder
from dense_hn.evaluate import measures
from dense_hn.mine import retrieve


@dataclass(kw_only=True)
class EvaluationArguments:
    """What is measured while training, where --eval_strategy says when."""

    eval_topics: str | None = field(
        default=None,
        metadata={"help": "Dev topics, for --eval_strategy: TSV, TREC or JSON."},
    )
    eval_qrels: str | None = field(
        default=None, metadata={"help": "Qrels for them, TREC's or BEIR's."}
    )
    eval_measures: list[str] = field(
        default_factory=lambda: ["RR@10", "nDCG@10", "R@100"],
        metadata={
            "help": "As for `python -m dense_hn.evaluate`, each with a cut; the best "
            "weights are those with the highest first one."
        },
    )
    early_stopping: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations without a better one."},
    )

    def __post_init__(self) -> None:
        if not self.eval_measures:
            raise DenseHNError("eval_measures is empty; name one, such as RR@10")
        for measure in self.eval_measures:
            if measures.parse(measure).cut is None:
                raise DenseHNError(
                    f"eval_measures: {measure} does not say how many hits to search "
                    f"for; give it a cut, such as {measure}@100"
                )
        if self.early_stopping is not None and self.early_stopping < 1:
            raise DenseHNError(
                f"early_stopping is {self.early_stopping}; it starts at 1"
            )

    def require_complete(self, training: TrainingArguments) -> None:
        """Check that there is all that evaluation needs, or nothing of it.

        The best checkpoint is then chosen by the first measure (``training`` is told).

        Raises:
            DenseHNError: names what is missing.
        """
        given = {"eval_topics": self.eval_topics, "eval_qrels": self.eval_qrels}
        evaluating = training.eval_strategy != "no"
        training.metric_for_best_model = f"eval_{self.eval_measures[0]}"
        if evaluating and not all(given.values()):
            missing = ", ".join(name for name, value in given.items() if not value)
            raise DenseHNError(f"--eval_strategy: missing: {missing}")
        given["early_stopping"] = self.early_stopping
        given["eval_on_start"] = training.eval_on_start
        if not evaluating and any(given.values()):
            name = next(name for name, value in given.items() if value)
            raise DenseHNError(
                f"{name}: nothing is evaluated; give --eval_strategy steps (or epoch)"
            )

    def callbacks(self) -> list[TrainerCallback]:
        """Transformers' early stopping, where it is asked for."""
        if self.early_stopping is None:
            return []
        return [EarlyStoppingCallback(early_stopping_patience=self.early_stopping)]


class Evaluator:
    """Scores an encoder on dev topics by exact search over passages."""

    def __init__(
        self,
        args: EvaluationArguments,
        passages: Callable[[DenseEncoder], Vectors],
    ) -> None:
        """Read the dev topics and qrels.

        Args:
            args: complete ones.
            passages: the encoder in training to what it searches.

        Raises:
            DenseHNError: a file that cannot be read, or judged topics without a text.
        """
        self.topics = trec.read_topics(args.eval_topics)
        self._qrels = trec.read_qrels(args.eval_qrels)
        trec.require_covered(
            self._qrels, self.topics, args.eval_qrels, args.eval_topics, "text"
        )
        self.topics = {qid: self.topics[qid] for qid in self._qrels}
        self._measures = args.eval_measures
        self.passages = passages

    def __call__(self, encoder: DenseEncoder) -> dict[str, float]:
        """Mean of each measure over the judged dev topics."""
        depth = max(measures.parse(measure).cut for measure in self._measures)
        run = dict(retrieve(encoder, self.passages(encoder), self.topics, depth))
        scored = measures.per_query(self._qrels, run, self._measures)
        return {name: float(np.mean(list(q.values()))) for name, q in scored.items()}


def of_corpus(
    args: EvaluationArguments, corpus: Corpus, share: float, seed: int
) -> Evaluator:
    """Evaluator that re-encodes a share of the corpus, drawn once, at every evaluation.

    All documents judged for a dev topic are among them.

    Raises:
        DenseHNError: as :class:`Evaluator`; a judged document that is not in the corpus.
    """
    qrels = trec.read_qrels(args.eval_qrels)
    trec.require_known(qrels, corpus, args.eval_qrels, "the corpus")
    number = int(share * len(corpus))
    drawn = Random(f"{seed} evaluation").sample(range(len(corpus)), number)
    judged = corpus.docids.rows(list(set().union(*qrels.values())))
    rows = sorted({*drawn, *judged.tolist()})
    texts = Corpus.of({corpus.docids[row]: corpus.texts[row] for row in rows})
    return Evaluator(args, partial(encode_in_memory, corpus=texts))
