"""A cross-encoder, trained to tell a query's relevant passage from its static negatives.

    python -m dense_hn.train cross --encoder DIR --corpus corpus.jsonl --topics train.tsv \\
        --qrels train.qrels --negatives run.txt --output_dir cross

It re-ranks runs (python -m dense_hn.rerank), and its scores are a teacher's. The loss of a
query is the softmax cross-entropy of its positive among it and the negatives drawn for it:
−log(exp s(p) / (exp s(p) + Σ exp s(n))), s the cross-encoder's scores. So scores are
learnt up to a constant for each query, and only compare documents of one query.

Source: localised contrastive estimation, Gao et al. 2021, arXiv 2101.08751, section 3.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import set_seed

from dense_hn import DenseHNError, costs, cross_encoder, losses, ranks, trec
from dense_hn.collections.corpus import Corpus
from dense_hn.cross_encoder import CrossEncoder
from dense_hn.encoder import set_dropout
from dense_hn.train.batches import JointDataset
from dense_hn.train.hard_negatives import material
from dense_hn.train.supervision import SupervisionArguments
from dense_hn.train.trainer import DenseTrainer, TellEpoch, fit
from dense_hn.train.training_arguments import DenseTrainingArguments


@dataclass(kw_only=True)
class Arguments(SupervisionArguments):
    """What a cross-encoder learns from."""

    encoder: str = field(
        metadata={
            "help": "Start from this folder or hub name: a cross-encoder, or any encoder, "
            "which gets a new head."
        }
    )
    corpus: str = field(metadata={"help": "JSONL (id and contents), TSV, or a folder."})
    negatives: list[str] = field(
        metadata={"help": "TREC runs for the training topics: static hard negatives."}
    )
    negatives_per_query: list[int] = field(
        default_factory=lambda: [3],
        metadata={
            "help": "Hard negatives drawn per query and epoch, which its positive is told "
            "from: one number for all runs together, or one for each run."
        },
    )
    length: int | None = field(
        default=None,
        metadata={
            "help": "Tokens of a pair, if not a cross-encoder's own; of another model, as many as "
            "it takes."
        },
    )
    dropout: float | None = field(
        default=None, metadata={"help": "Dropout, if not the checkpoint's own."}
    )


class CrossCollator:
    """Items of a JointDataset to one batch of pairs."""

    def __init__(self, cross: CrossEncoder, corpus: Corpus) -> None:
        self._cross = cross
        self._corpus = corpus

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tokens of N pairs, and where the pairs of B queries are among them.

        ``columns`` [B, 1 + K] int64: a query's pair with its positive, and those with its
        negatives; ``negatives`` [B, K] bool: which of the latter there are. Of several
        processes, each has the same batch, and the tokens of its own share.
        """
        pairs, columns = [], []
        for item in items:
            (query,) = item["topics"].values()
            docids = [item["positive"], *item["hard"], *item["random"]]
            columns.append(range(len(pairs), len(pairs) + len(docids)))
            pairs += [(query, self._corpus[docid]) for docid in docids]
        longest = max(map(len, columns))
        filled = [[*own, *[own[0]] * (longest - len(own))] for own in columns]
        there = [[n < len(own) for n in range(1, longest)] for own in columns]
        return {
            "pairs": self._cross.batch(ranks.own(pairs)),
            "number": len(pairs),
            "columns": torch.tensor(filled),
            "negatives": torch.tensor(there, dtype=torch.bool),
        }


class CrossTrainer(DenseTrainer):
    """Scores a query's positive and negatives, and applies the loss."""

    def __init__(self, *, cross: CrossEncoder, **kwargs: Any) -> None:
        super().__init__(model=cross.model, **kwargs)
        self._cross = cross
        # The model is never asked for the loss, so that steps which are accumulated must
        # be averaged.
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model, inputs, return_outputs=False, **_) -> Tensor:
        """Called by the Trainer with a batch of :class:`CrossCollator`."""
        with costs.part("encode"):
            scores = self._cross.forward(**inputs["pairs"], model=model)
            scores = ranks.gather(scores[:, None], inputs["number"])[:, 0]
        with costs.part("loss"):
            scores = scores[inputs["columns"]]
            positive, others, there = scores[:, 0], scores[:, 1:], inputs["negatives"]
            level = (others >= positive[:, None]) & there
            self.telemetry.add("positive_first", ~level.any(dim=1))
            loss = losses.infonce(positive, others, there, there)
        return (loss, {"scores": scores}) if return_outputs else loss


def check(_: Arguments, training: DenseTrainingArguments) -> None:
    """Refuse to evaluate meanwhile, as the Trainer does; needs no file.

    Raises:
        DenseHNError: it is asked for.
    """
    if training.eval_strategy != "no" or training.eval_on_start:
        raise DenseHNError(
            "--eval_strategy, --eval_on_start: a cross-encoder is not evaluated while it "
            "trains; leave them out, and score what `python -m dense_hn.rerank` makes of a "
            "run"
        )
    if training.save_strategy == "best" or training.metric_for_best_model:
        raise DenseHNError(
            "--save_strategy best, --metric_for_best_model: nothing is evaluated, so that "
            "no checkpoint is the best; leave them out"
        )


def train(args: Arguments, training: DenseTrainingArguments) -> None:
    """Train a cross-encoder and write it to ``training.output_dir``.

    All input is read and checked before the model is loaded.

    Raises:
        DenseHNError: a file that cannot be read, a docid that is not in the corpus, a
            topic without positives, no topic with negatives, flags that do not go
            together.
    """
    check(args, training)
    supervision, corpus, hard, random = material(args, training.seed)
    drawn = hard.sources()
    training.require_replaceable(args.encoder, cross_encoder.FILE)
    set_seed(training.seed)
    cross = CrossEncoder.load(args.encoder, args.length, seed=training.seed)
    if args.dropout is not None:
        set_dropout(cross.model, args.dropout)
    # Those without any negative, which are counted, have nothing to be told from.
    topics = {
        qid: text
        for qid, text in supervision.topics.items()
        if args.random_per_query or any(qid in source for source in drawn)
    }
    training.require_a_batch(len(topics))
    positives = {qid: trec.positives(supervision.qrels, qid) for qid in topics}
    dataset = JointDataset(topics, positives, drawn, random, training.seed)
    trainer = CrossTrainer(
        cross=cross,
        args=training,
        train_dataset=dataset,
        data_collator=CrossCollator(cross, corpus),
        callbacks=[TellEpoch(dataset)],
        report=supervision.report,
    )
    fit(trainer, cross, args)
    if trainer.is_world_process_zero():
        supervision.write_report(training.encoder_dir, corpus)
