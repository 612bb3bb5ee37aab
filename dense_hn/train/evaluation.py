"""Evaluation while training: real retrieval for dev topics, the best weights kept."""

from collections.abc import Callable, Container, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
from torch import Tensor
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainingArguments,
)

from dense_hn import DenseHNError, maxp, trec
from dense_hn.collections.corpus import Corpus
from dense_hn.columns import Docids
from dense_hn.encode import encode_in_memory, encode_some
from dense_hn.encoder import DenseEncoder
from dense_hn.evaluate import measures
from dense_hn.mine import retrieve
from dense_hn.vectors import Vectors

# Passages that are looked at for each document that a measure looks at.
PER_DOCUMENT = 10


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
    eval_max_passage: bool = field(
        default=False,
        metadata={
            "help": "Passages are D#0, D#1, …: score documents, each with its best passage."
        },
    )
    eval_measures: list[str] = field(
        default_factory=lambda: ["RR@10", "nDCG@10", "R@100"],
        metadata={
            "help": "As for `python -m dense_hn.evaluate`, each with a cut; the best "
            "weights are those with the highest first one."
        },
    )
    eval_share: float = field(
        default=1.0,
        metadata={
            "help": "Share of the corpus that is searched (and, in warmup, star and dynamic, "
            "encoded) for an evaluation; what is judged for its topics always is. "
            "With --eval_max_passage, of its documents. "
            "Stages with one share and seed, and the same topics, can be compared."
        },
    )
    eval_training_topics: int = field(
        default=0,
        metadata={
            "help": "So many training topics, drawn once, are searched for as well, and "
            "logged as eval_train_RR@10 and so on: what was learnt by heart."
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
        if not 0 <= self.eval_share <= 1:
            raise DenseHNError(f"eval_share is {self.eval_share}; it is from 0 to 1")
        if self.eval_training_topics < 0:
            raise DenseHNError(
                f"eval_training_topics is {self.eval_training_topics}; it starts at 0"
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
        best = f"eval_{self.eval_measures[0]}"
        # "loss" is what transformers puts there by itself.
        if training.metric_for_best_model not in (
            *(None, "loss", best, self.eval_measures[0]),
        ):
            raise DenseHNError(
                f"--metric_for_best_model {training.metric_for_best_model}: the best "
                "weights are those of the first of --eval_measures; put it there instead"
            )
        training.metric_for_best_model = best
        if evaluating and not all(given.values()):
            missing = ", ".join(name for name, value in given.items() if not value)
            raise DenseHNError(f"--eval_strategy: missing: {missing}")
        given["eval_training_topics"] = self.eval_training_topics
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
    """Scores an encoder on dev and training topics by exact search over passages."""

    def __init__(
        self,
        args: EvaluationArguments,
        topics: Mapping[str, str],
        qrels: trec.Qrels,
        seed: int,
        docids: Container[str],
        passages: Callable[[DenseEncoder, AbstractSet[str]], Vectors],
    ) -> None:
        """Read the dev topics and qrels, and draw from the training topics.

        Args:
            args: complete ones.
            topics: those that are trained on.
            qrels: for them.
            seed: of the draw.
            docids: of the corpus.
            passages: the encoder in training, and the docids that are judged for any of
                the topics, to what it searches.

        Raises:
            DenseHNError: a file that cannot be read, judged topics without a text, or
                documents that are not in the corpus.
        """
        dev, judged = (
            trec.read_topics(args.eval_topics),
            trec.read_qrels(args.eval_qrels),
        )
        trec.require_covered(judged, dev, args.eval_qrels, args.eval_topics, "text")
        trec.require_known(judged, docids, args.eval_qrels, "the corpus")
        number = min(args.eval_training_topics, len(topics))
        drawn = Random(f"{seed} training topics").sample(list(topics), number)
        # What the names of a set's measures begin with, its topics and qrels.
        self._sets = {"": ({qid: dev[qid] for qid in judged}, judged)}
        if drawn:
            self._sets["train_"] = (
                {qid: topics[qid] for qid in drawn},
                {qid: qrels[qid] for qid in drawn},
            )
        self._judged = {
            d for _, judged in self._sets.values() for of in judged.values() for d in of
        }
        self._max_passage = args.eval_max_passage
        if self._max_passage:
            self._sets = {
                prefix: (asked, maxp.of_documents(judged))
                for prefix, (asked, judged) in self._sets.items()
            }
        self._measures = args.eval_measures
        self._passages = passages

    def __call__(self, encoder: DenseEncoder) -> dict[str, float]:
        """Mean of each measure over the judged topics of a set."""
        depth = max(measures.parse(measure).cut for measure in self._measures)
        passages, found = self._passages(encoder, self._judged), {}
        depth *= PER_DOCUMENT if self._max_passage else 1
        for prefix, (topics, qrels) in self._sets.items():
            run = dict(retrieve(encoder, passages, topics, depth))
            if self._max_passage:
                run = maxp.of_documents(run)
            scored = measures.per_query(qrels, run, self._measures)
            for name, of in scored.items():
                found[f"{prefix}{name}"] = float(np.mean(list(of.values())))
        return found


def encode_share(
    encoder: DenseEncoder,
    judged: AbstractSet[str],
    corpus: Corpus,
    share: float,
    seed: int,
    by_document: bool = False,
) -> Vectors:
    """The vectors of a share of the corpus, the same at every call, and of what is judged.

    With ``by_document`` the share is one of documents, with all their passages
    (dense_hn.maxp).
    """
    if share == 1:
        return encode_in_memory(encoder, corpus)
    rows = _rows(corpus.docids, judged, share, seed, by_document)
    return encode_some(encoder, corpus, [corpus.docids[row] for row in rows])


def take_share(
    vectors: Vectors,
    judged: AbstractSet[str],
    share: float,
    seed: int,
    by_document: bool = False,
    take: Callable[[slice | list[int]], Tensor] | None = None,
) -> Vectors:
    """Of these vectors those of the passages that :func:`encode_share` takes.

    They are in the corpus's order, which an index of another make need not have.

    Args:
        vectors: of the whole corpus.
        judged: docids that are taken in any case.
        share: of the corpus.
        seed: of the draw.
        by_document: whether it is a share of documents.
        take: rows to what is searched in the place of their vectors.
    """
    take = take or vectors.matrix.__getitem__
    if share == 1:
        return replace(vectors, matrix=take(slice(None)))
    rows = _rows(vectors.docids, judged, share, seed, by_document)
    docids = Docids.of(vectors.docids[row] for row in rows)
    return replace(vectors, docids=docids, matrix=take(rows))


def _rows(
    docids: Docids,
    judged: AbstractSet[str],
    share: float,
    seed: int,
    by_document: bool,
) -> list[int]:
    draw = Random(f"{seed} evaluation")
    if by_document:
        names = list(dict.fromkeys(map(maxp.document, docids)))
        taken = set(draw.sample(names, int(share * len(names))))
        taken.update(map(maxp.document, judged))
        return [row for row, d in enumerate(docids) if maxp.document(d) in taken]
    drawn = draw.sample(range(len(docids)), int(share * len(docids)))
    return sorted({*drawn, *docids.rows(list(judged)).tolist()})
