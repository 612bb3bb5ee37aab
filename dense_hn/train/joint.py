"""Both sides of the encoder trained together, on batches of queries and documents.

The query and the passage encoder share their weights. Each query brings one positive
and the negatives drawn for it: static hard negatives from runs, random ones from the
corpus. Every other document of the batch is a random negative too, unless `in_batch` is
off. Known positives are never negatives, whatever their source. `warmup` and `star` are
this, with other defaults.

Source: arXiv 2104.08051, section 5.1.
"""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, set_seed

from dense_hn import DenseHNError, losses, trec
from dense_hn.collections.jsonl import Corpus, read_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.false_negatives import Filter, Report
from dense_hn.negatives import RandomNegatives, StaticNegatives
from dense_hn.train.supervision import Supervision, SupervisionArguments
from dense_hn.train.trainer import DenseTrainingArguments, TellEpoch, fit

IN_BATCH = "documents of the batch, by the scores of the step"


@dataclass(kw_only=True)
class JointArguments(SupervisionArguments):
    """What both sides train on, and how their loss is put together."""

    encoder: str = field(metadata={"help": "Start from this folder or hub name."})
    corpus: str = field(metadata={"help": "JSONL file, one id and contents a line."})
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
        metadata={"help": "Best hits of each run to leave out, as too suspicious."},
    )
    random_per_query: int = field(
        default=0,
        metadata={"help": "Documents of the whole corpus drawn per query and epoch."},
    )
    in_batch: bool = field(
        default=True,
        metadata={"help": "The batch's other documents are random negatives as well."},
    )
    star_loss: str = field(
        default="weighted",
        metadata={
            "help": "weighted: mean over hard pairs + alpha · mean over random pairs "
            "(STAR, Eq. 13); pooled: one mean over all pairs (STAR's released code); "
            "infonce: softmax over the positive and all negatives of the batch, "
            "temperature 1/scale; margin-mse: squared difference of the score margins "
            "to the teacher's (arXiv 2010.02666); kl: divergence from the teacher's "
            "softmax over the documents that it scored (arXiv 1503.02531).",
            "choices": [*losses.STAR_LOSSES, *losses.DISTILLATIONS],
        },
    )
    alpha: float = field(
        default=1.0, metadata={"help": "Weight of the random pairs in weighted."}
    )
    teacher_scale: float = field(
        default=1.0,
        metadata={"help": "Distillation multiplies the teacher's scores with this."},
    )
    query_length: int | None = field(
        default=None,
        metadata={"help": "Tokens of a query in training, if not the encoder's own."},
    )
    passage_length: int | None = field(
        default=None,
        metadata={"help": "Tokens of a passage in training, if not the encoder's own."},
    )
    dropout: float | None = field(
        default=None, metadata={"help": "Dropout, if not the checkpoint's own."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.negatives_skip < self.negatives_depth:
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
        if not (self.negatives or self.random_per_query or self.in_batch):
            raise DenseHNError(
                "there is no source of negatives: give negatives (runs), "
                "random_per_query, or in_batch"
            )
        if not self.alpha >= 0:
            raise DenseHNError(f"alpha is {self.alpha}; it must be 0 or more")
        if self.distils() and not (self.teacher and self.negatives):
            raise DenseHNError(
                f"star_loss {self.star_loss} needs a teacher's run, and negatives that "
                "the teacher scored"
            )

    def distils(self) -> bool:
        """Whether the loss learns from the teacher's scores."""
        return self.star_loss in losses.DISTILLATIONS

    def uses_teacher(self) -> bool:
        """Whether the loss, or a filter, looks at the teacher's scores."""
        return self.distils() or super().uses_teacher()


class JointDataset(Dataset):
    """Training topics with one positive and their negatives, drawn anew each epoch."""

    def __init__(
        self,
        topics: Mapping[str, str],
        positives: Mapping[str, Sequence[str]],
        hard: Sequence[StaticNegatives],
        random: RandomNegatives,
        seed: int,
    ) -> None:
        self.epoch = 0
        self._topics = list(topics.items())
        self._positives = positives
        self._hard = hard
        self._random = random
        self._seed = seed

    def __len__(self) -> int:
        return len(self._topics)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"qid", "query", "positive", "hard", "random"}``: the text, and docids."""
        qid, query = self._topics[index]
        draw = Random(f"{self._seed} positive {self.epoch} {qid}")
        hard = [d for source in self._hard for d in source.draw(qid, self.epoch)]
        return {
            "qid": qid,
            "query": query,
            "positive": draw.choice(self._positives[qid]),
            "hard": hard,
            "random": self._random.draw(qid, self.epoch),
        }


class JointCollator:
    """Items of a :class:`JointDataset` to one batch of tokens, masks and scores."""

    def __init__(
        self,
        encoder: DenseEncoder,
        corpus: Mapping[str, str],
        excluded: Mapping[str, AbstractSet[str]],
        *,
        in_batch: bool = True,
        teacher: Mapping[str, Mapping[str, float]] | None = None,
        query_length: int | None = None,
        passage_length: int | None = None,
    ) -> None:
        self._queries = partial(encoder.tokenize, kind="query", length=query_length)
        self._passages = partial(
            encoder.tokenize, kind="passage", length=passage_length
        )
        self._corpus = corpus
        self._excluded = excluded
        self._in_batch = in_batch
        self._teacher = teacher

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tokens of B queries and M passages, and [B, M] masks.

        The first B passages are the positives, in the order of the queries; their hard
        negatives follow, and then their random ones. ``hard`` marks a query's own hard
        negatives, ``random`` its own random ones and (with ``in_batch``) everything
        that came with other queries; neither what the query excludes. With a teacher,
        ``teacher`` [B, M] holds its scores, NaN where it has none.
        """
        docids, owners, kinds = [], [], []
        for kind in ("positive", "hard", "random"):
            for row, item in enumerate(items):
                brought = [item[kind]] if kind == "positive" else item[kind]
                docids += brought
                owners += [row] * len(brought)
                kinds += [kind] * len(brought)
        qids = [item["qid"] for item in items]
        left = torch.tensor(
            [[d not in self._excluded[q] for d in docids] for q in qids]
        )
        own = torch.arange(len(items))[:, None] == torch.tensor(owners)
        hard = own & torch.tensor([kind == "hard" for kind in kinds])
        random = own & torch.tensor([kind == "random" for kind in kinds])
        if self._in_batch:
            random = random | ~own
        batch = {
            "qids": qids,
            "docids": docids,
            "queries": self._queries([item["query"] for item in items]),
            "passages": self._passages([self._corpus[docid] for docid in docids]),
            "hard": hard & left,
            "random": random & left,
        }
        if self._teacher is not None:
            scores = [
                [self._teacher[q].get(d, torch.nan) for d in docids] for q in qids
            ]
            batch["teacher"] = torch.tensor(scores)
        return batch


class JointTrainer(Trainer):
    """Encodes queries and passages with the same weights, and applies a loss."""

    def __init__(
        self,
        *,
        star_loss: str,
        alpha: float = 1.0,
        teacher_scale: float = 1.0,
        filter_: Filter | None = None,
        report: Report | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._name = star_loss
        self._alpha = alpha
        self._teacher_scale = teacher_scale
        self._filter = filter_
        self._report = report

    def compute_loss(self, model, inputs, return_outputs=False, **_) -> Tensor:
        """Called by the Trainer with a batch of :class:`JointCollator`."""
        queries = model(**inputs["queries"])
        passages = model(**inputs["passages"])
        similarity = queries @ passages.T
        random = inputs["random"]
        if self._filter:
            random = random & ~self._suspicious(similarity.detach(), inputs)
        scores = self.model.settings.scale * similarity
        loss = self._loss(scores, inputs["hard"], random, inputs.get("teacher"))
        return (loss, {"scores": scores}) if return_outputs else loss

    def _suspicious(self, similarity: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """[B, M] random negatives that look relevant now; they go into the report."""
        own = similarity.diagonal()
        found = self._filter.suspicious(similarity, own[:, None]) & inputs["random"]
        for row, column in found.nonzero().tolist():
            qid, docid = inputs["qids"][row], inputs["docids"][column]
            score, positive = similarity[row, column].item(), own[row].item()
            self._report.drop(IN_BATCH, qid, docid, score, positive)
        return found

    def _loss(
        self, scores: Tensor, hard: Tensor, random: Tensor, teacher: Tensor | None
    ) -> Tensor:
        positive = scores.diagonal()
        if self._name in losses.DISTILLATIONS:
            teacher = self._teacher_scale * teacher
            pairs = (hard | random) & ~teacher.isnan()
            distil = losses.DISTILLATIONS[self._name]
            return distil(positive, scores, pairs, teacher.diagonal(), teacher)
        if self._name == "weighted":
            return losses.star_weighted(positive, scores, hard, random, self._alpha)
        return losses.STAR_LOSSES[self._name](positive, scores, hard, random)


def train(args: JointArguments, training: DenseTrainingArguments) -> None:
    """Train both sides and write the encoder to ``training.output_dir``.

    All input is read and checked before the encoder is loaded.

    Raises:
        DenseHNError: a file that cannot be read, a docid that is not in the corpus, a
            topic without positives or negatives.
    """
    supervision = Supervision(args)
    corpus = read_corpus(args.corpus)
    trec.require_known(supervision.qrels, corpus, args.qrels, args.corpus)
    positives = _positives(args, supervision)
    runs = _read_runs(args, supervision, corpus)
    hard = sources(args, supervision, runs, training.seed)
    random = RandomNegatives(
        list(corpus), supervision.excluded, args.random_per_query, training.seed
    )
    training.require_replaceable()
    set_seed(training.seed)
    encoder = DenseEncoder.load(args.encoder, passage_encoder="")
    if args.dropout is not None:
        encoder.set_dropout(args.dropout)
    dataset = JointDataset(supervision.topics, positives, hard, random, training.seed)
    trainer = JointTrainer(
        model=encoder,
        args=training,
        train_dataset=dataset,
        data_collator=JointCollator(
            encoder,
            corpus,
            supervision.excluded,
            in_batch=args.in_batch,
            teacher=supervision.teacher if args.distils() else None,
            query_length=args.query_length,
            passage_length=args.passage_length,
        ),
        callbacks=[TellEpoch(dataset)],
        star_loss=args.star_loss,
        alpha=args.alpha,
        teacher_scale=args.teacher_scale,
        filter_=supervision.filter,
        report=supervision.report,
    )
    fit(trainer, encoder)
    supervision.write_report(training.encoder_dir, corpus)


def _positives(args: JointArguments, supervision: Supervision) -> dict[str, list[str]]:
    """The positives that are drawn from: with a distilling loss, those with a score.

    Raises:
        DenseHNError: the teacher scored no positive of some topic.
    """
    positives = {
        qid: trec.positives(supervision.qrels, qid) for qid in supervision.topics
    }
    if not args.distils():
        return positives
    teacher = supervision.teacher
    scored = {q: [d for d in ds if d in teacher[q]] for q, ds in positives.items()}
    covered = {qid for qid, docids in scored.items() if docids}
    trec.require_covered(
        positives, covered, args.topics, args.teacher, "relevant document with a score"
    )
    return scored


def _read_runs(
    args: JointArguments, supervision: Supervision, corpus: Corpus
) -> list[trec.Run]:
    """The runs of static hard negatives, looked through by the filters.

    Raises:
        DenseHNError: a run with a docid that is not in the corpus; a topic for which no
            run has a negative.
    """
    runs = []
    for path in args.negatives:
        run = trec.read_run(path)
        trec.require_known(run, corpus, path, args.corpus)
        runs.append(run)
    if runs:
        covered = {
            qid
            for qid, positives in supervision.excluded.items()
            if any(docid not in positives for run in runs for docid in run.get(qid, ()))
        }
        where = " or ".join(args.negatives)
        trec.require_covered(
            supervision.topics, covered, args.topics, where, "negatives"
        )
    for path, run in zip(args.negatives, runs, strict=True):
        look_through(run, path, args, supervision)
    return runs


def look_through(
    run: trec.Run, name: str, args: JointArguments, supervision: Supervision
) -> None:
    """Exclude what the filters suspect in a run, and note what its window skips."""
    supervision.exclude(run, supervision.filter, name)
    if args.negatives_skip:
        source = f"{name}, ranks 1 to {args.negatives_skip}"
        for qid in supervision.topics:
            hits = run.get(qid, {})
            for docid in trec.ranked(hits)[: args.negatives_skip]:
                if supervision.qrels[qid].get(docid, 0) < 1:
                    supervision.report.drop(source, qid, docid, hits[docid], math.nan)


def sources(
    args: JointArguments, supervision: Supervision, runs: Sequence[trec.Run], seed: int
) -> list[StaticNegatives]:
    """What static hard negatives are drawn from: all runs together, or one by one.

    A distilling loss draws only what the teacher scored.
    """
    if args.distils():
        teacher = supervision.teacher
        runs = [
            {
                qid: {d: s for d, s in run.get(qid, {}).items() if d in teacher[qid]}
                for qid in supervision.topics
            }
            for run in runs
        ]
    together = len(args.negatives_per_query) == 1
    groups = [runs] if together else [[run] for run in runs]
    drawn = [
        StaticNegatives(
            group,
            supervision.excluded,
            args.negatives_depth,
            number,
            seed + place,
            args.negatives_skip,
        )
        for place, (group, number) in enumerate(
            zip(groups, args.negatives_per_query, strict=True)
        )
    ]
    without = sum(not any(q in source for source in drawn) for q in supervision.topics)
    if runs and without:
        supervision.report.note("queries left without a static hard negative", without)
    return drawn
