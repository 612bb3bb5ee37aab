"""Both sides of the encoder trained together, on batches of queries and documents.

The query and the passage encoder share their weights. Each query brings one positive
and the negatives drawn for it (several queries may share all of that): static hard negatives from runs, random ones from the
corpus. Every other document of the batch is a random negative too, unless `in_batch` is
off. Known positives are never negatives, whatever their source. `warmup` and `star` are
this, with other defaults.

Source: arXiv 2104.08051, section 5.1.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor
from transformers import set_seed

from dense_hn import DenseHNError, costs, losses, ranks
from dense_hn.encoder import DenseEncoder
from dense_hn.train.batches import JointCollator, JointDataset, SharedDataset
from dense_hn.train.distillation import Distillation, taught
from dense_hn.train.evaluation import Evaluator, encode_share
from dense_hn.train.hard_negatives import Refresh, material
from dense_hn.train.joint_arguments import JointArguments
from dense_hn.train.trainer import DenseTrainer, TellEpoch, fit
from dense_hn.train.training_arguments import DenseTrainingArguments

log = logging.getLogger("dense_hn")

IN_BATCH = "documents of the batch, by the scores of the step"


class JointTrainer(DenseTrainer):
    """Encodes queries and passages with the same weights, and applies a loss."""

    def __init__(
        self,
        *,
        star_loss: str,
        alpha: float = 1.0,
        distillation: Distillation | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._name = star_loss
        self._alpha = alpha
        self._distillation = distillation

    def compute_loss(self, model, inputs, return_outputs=False, **_) -> Tensor:
        """Called by the Trainer with a batch of :class:`JointCollator`."""
        with costs.part("encode"):
            number, docids = len(inputs["qids"]), inputs["docids"]
            queries = ranks.gather(model(**inputs["queries"]), number)
            passages = ranks.gather(model(**inputs["passages"]), len(docids))
        with costs.part("loss"):
            loss, scores = self.loss_of(queries, passages, inputs)
        return (loss, {"scores": scores}) if return_outputs else loss

    def loss_of(
        self, queries: Tensor, passages: Tensor, inputs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """The loss of vectors [B, D] and [M, D] of a batch, and their scores [B, M]."""
        docids = inputs["docids"]
        scores = self.model.settings.scale * queries @ passages.T
        positive = _positives_of(scores, inputs)
        random = self.trusted(
            IN_BATCH,
            inputs["random"],
            scores,
            positive,
            inputs["qids"],
            lambda _, column: docids[column],
        )
        self._tell(positive, scores, inputs["hard"], random)
        return self._loss(positive, scores, inputs, random), scores

    def _tell(
        self, positive: Tensor, scores: Tensor, hard: Tensor, random: Tensor
    ) -> None:
        """How many positives, and negatives, stand above the others.

        A positive that is level with a negative is not first: where all scores are one,
        nothing is.
        """
        level = scores >= positive[:, None]
        first = ~(level & (hard | random)).any(dim=1)
        self.telemetry.add("positive_first", first)
        self.telemetry.add("hard_above", (scores > positive[:, None])[hard])

    def _loss(
        self,
        positive: Tensor,
        scores: Tensor,
        inputs: Mapping[str, Any],
        random: Tensor,
    ) -> Tensor:
        hard = inputs["hard"]
        more = {"alpha": self._alpha} if self._name == "weighted" else {}
        loss = losses.STAR_LOSSES[self._name](positive, scores, hard, random, **more)
        if self._distillation is None:
            return loss
        teacher = inputs["teacher"]
        best = _positives_of(teacher, inputs)
        return self._distillation.mixed(
            loss, positive, scores, hard | random, best, teacher
        )


def check(args: JointArguments, training: DenseTrainingArguments) -> None:
    """Refuse settings that do not go together; needs no file.

    Raises:
        DenseHNError: names them.
    """
    args.require_complete(training)
    if args.refresh_steps and training.dataloader_num_workers:
        raise DenseHNError(
            "refresh_steps: the workers of --dataloader_num_workers would not hear of "
            "new negatives; leave it at 0, or give refresh_epochs"
        )
    if not args.draws() and training.whole_batch() == 1:
        raise DenseHNError(
            "a batch of one query has no in-batch negatives; raise "
            "--per_device_train_batch_size, or give negatives or random_per_query"
        )


def train(
    args: JointArguments,
    training: DenseTrainingArguments,
    make: Callable[..., JointTrainer] | None = None,
) -> None:
    """Train both sides and write the encoder to ``training.output_dir``.

    All input is read and checked before the encoder is loaded.

    Args:
        args: what to train on.
        training: transformers' settings.
        make: supervision, corpus and JointTrainer's arguments to another trainer.

    Raises:
        DenseHNError: a file that cannot be read, a docid that is not in the corpus, a
            topic without positives or negatives, flags that do not go together.
    """
    check(args, training)
    supervision, corpus, hard, random = material(
        args,
        training.seed,
        alone=not (args.in_batch or args.random_per_query or args.finds_negatives()),
        scored_only=args.distils_alone(),
    )
    positives = taught(args, supervision)
    drawn = hard.sources()
    evaluator = None
    if args.eval_topics:
        seed = training.seed
        passages = partial(
            encode_share,
            corpus=corpus,
            share=args.eval_share,
            seed=seed,
            by_document=args.eval_max_passage,
        )
        told = supervision.topics, supervision.judged
        evaluator = Evaluator(args, *told, seed, corpus, passages)
    training.require_replaceable(args.encoder)
    set_seed(training.seed)
    encoder = _encoder(args)
    topics = {qid: supervision.topics[qid] for qid in positives}
    kind = JointDataset
    if args.topics_per_positive > 1:
        kind = partial(SharedDataset, topics_per_positive=args.topics_per_positive)
    dataset = kind(topics, positives, drawn, random, training.seed)
    training.require_a_batch(len(dataset))
    _warn_of_a_batch_of_one(args, training, len(dataset))
    callbacks = [TellEpoch(dataset), *args.callbacks()]
    if args.refresh_steps or args.refresh_epochs:
        callbacks.append(Refresh(args, hard, dataset, corpus, supervision))
    if make is None:
        make = JointTrainer
    else:
        make = partial(make, supervision, corpus)
    trainer = make(
        model=encoder,
        args=training,
        train_dataset=dataset,
        data_collator=JointCollator(
            encoder,
            corpus,
            supervision.excluded,
            in_batch=args.in_batch,
            teacher=supervision.teacher if args.distil else None,
            query_length=args.query_length,
            passage_length=args.passage_length,
        ),
        callbacks=callbacks,
        star_loss=args.star_loss,
        alpha=args.alpha,
        distillation=args.distillation(),
        filter_=supervision.filter,
        report=supervision.report,
        evaluator=evaluator,
    )
    fit(trainer, encoder, args)
    if trainer.is_world_process_zero():
        supervision.write_report(training.encoder_dir, corpus)


def _encoder(args: JointArguments) -> DenseEncoder:
    """The encoder to train, whose passages will be its own."""
    settings = args.encoder_settings()
    encoder = DenseEncoder.load(args.encoder, passage_encoder="", **settings)
    encoder.require_room_for(args.query_length, args.passage_length)
    if args.dropout is not None:
        encoder.set_dropout(args.dropout)
    return encoder


def _warn_of_a_batch_of_one(
    args: JointArguments, training: DenseTrainingArguments, total: int
) -> None:
    left = total % training.whole_batch()
    if left == 1 and not args.draws() and not training.dataloader_drop_last:
        log.warning(
            "the last batch of each epoch has one positive, and so no negative, and teaches "
            "nothing; take another batch size, or --dataloader_drop_last true"
        )


def _positives_of(scores: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """[B] of [B, M]: what each query's positive has."""
    return scores.gather(1, inputs["positive"][:, None])[:, 0]
