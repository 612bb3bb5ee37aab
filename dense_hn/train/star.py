"""STAR: static hard negatives, stabilised by the batch's random ones.

    python -m dense_hn.train star --encoder DIR --corpus corpus.jsonl --topics train.tsv \\
        --qrels train.qrels --negatives run.txt --output_dir models/star

Both encoders share their weights. Each query brings one positive and its static hard
negatives; every other document of the batch is a random negative, known positives
masked out by the qrels.

Source: arXiv 2104.08051, section 5.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, set_seed

from dense_hn import DenseHNError, losses, trec
from dense_hn.collections.jsonl import read_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.negatives import StaticNegatives
from dense_hn.train.trainer import DenseTrainingArguments, TellEpoch, fit


@dataclass(kw_only=True, slots=True)
class Arguments:
    """What STAR trains on, and how its loss is put together."""

    encoder: str = field(metadata={"help": "Start from this folder or hub name."})
    corpus: str = field(metadata={"help": "JSONL file, one id and contents a line."})
    topics: str = field(metadata={"help": "Training topics, TSV."})
    qrels: str = field(
        metadata={"help": "TREC qrels: relevance 1 or more is relevant."}
    )
    negatives: list[str] = field(
        metadata={"help": "TREC runs for the training topics: static hard negatives."}
    )
    negatives_depth: int = field(
        default=200, metadata={"help": "Hits of each run that are drawn from."}
    )
    negatives_per_query: int = field(
        default=1, metadata={"help": "Hard negatives drawn per query and epoch."}
    )
    star_loss: str = field(
        default="weighted",
        metadata={
            "help": "weighted: mean over hard pairs + alpha · mean over random pairs "
            "(Eq. 13); pooled: one mean over all pairs (released code); infonce: "
            "softmax over the positive and all negatives of the batch.",
            "choices": list(losses.STAR_LOSSES),
        },
    )
    alpha: float = field(
        default=1.0, metadata={"help": "Weight of the random pairs in weighted."}
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
        if self.negatives_depth < 1 or self.negatives_per_query < 1:
            raise DenseHNError(
                "star: negatives_depth and negatives_per_query start at 1"
            )
        if not self.alpha >= 0:
            raise DenseHNError(f"star: alpha is {self.alpha}; it must be 0 or more")


class StarDataset(Dataset):
    """Training topics with one positive and hard negatives, drawn anew each epoch."""

    def __init__(
        self,
        topics: Mapping[str, str],
        qrels: Mapping[str, Mapping[str, int]],
        negatives: StaticNegatives,
        per_query: int,
        seed: int,
    ) -> None:
        self.epoch = 0
        self._topics = list(topics.items())
        self._qrels = qrels
        self._negatives = negatives
        self._per_query = per_query
        self._seed = seed

    def __len__(self) -> int:
        return len(self._topics)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"qid", "query", "positive", "negatives"}``: ids, and the query's text."""
        qid, query = self._topics[index]
        relevant = trec.positives(self._qrels, qid)
        draw = Random(f"{self._seed} {self.epoch} {qid}")
        return {
            "qid": qid,
            "query": query,
            "positive": draw.choice(relevant),
            "negatives": self._negatives.draw(qid, self.epoch, self._per_query),
        }


class StarCollator:
    """Items of a :class:`StarDataset` to one batch of tokens and masks."""

    def __init__(
        self,
        encoder: DenseEncoder,
        corpus: Mapping[str, str],
        qrels: Mapping[str, Mapping[str, int]],
        query_length: int | None = None,
        passage_length: int | None = None,
    ) -> None:
        self._queries = partial(encoder.tokenize, kind="query", length=query_length)
        self._passages = partial(
            encoder.tokenize, kind="passage", length=passage_length
        )
        self._corpus = corpus
        self._qrels = qrels

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tokens of B queries and M passages, and [B, M] masks.

        The first B passages are the positives, in the order of the queries; their hard
        negatives follow. ``hard`` marks a query's own hard negatives, ``random`` every
        other document of the batch that is no known positive of it.
        """
        docids = [item["positive"] for item in items]
        owner = list(range(len(items)))
        for row, item in enumerate(items):
            docids += item["negatives"]
            owner += [row] * len(item["negatives"])
        own = torch.arange(len(items))[:, None] == torch.tensor(owner)
        judged = [self._qrels[item["qid"]] for item in items]
        known = torch.tensor([[row.get(d, 0) > 0 for d in docids] for row in judged])
        return {
            "queries": self._queries([item["query"] for item in items]),
            "passages": self._passages([self._corpus[docid] for docid in docids]),
            "hard": own & ~known,
            "random": ~own & ~known,
        }


class StarTrainer(Trainer):
    """Encodes queries and passages with the same weights; the loss is one of STAR's."""

    def __init__(self, *, star_loss: str, alpha: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        loss = losses.STAR_LOSSES[star_loss]
        self._loss = partial(loss, alpha=alpha) if star_loss == "weighted" else loss

    def compute_loss(self, model, inputs, return_outputs=False, **_) -> Tensor:
        """Called by the Trainer with a batch of :class:`StarCollator`."""
        queries = model(**inputs["queries"])
        passages = model(**inputs["passages"])
        scores = self.model.settings.scale * queries @ passages.T
        loss = self._loss(scores.diagonal(), scores, inputs["hard"], inputs["random"])
        return (loss, {"scores": scores}) if return_outputs else loss


def train(args: Arguments, training: DenseTrainingArguments) -> None:
    """Train with STAR and write the encoder to ``training.output_dir``.

    All input is read and checked before the encoder is loaded.

    Raises:
        DenseHNError: a file that cannot be read, a docid that is not in the corpus, a
            topic without positives or negatives.
    """
    topics, qrels = trec.read_judged(args.topics, args.qrels)
    runs = [trec.read_run(path) for path in args.negatives]
    corpus = read_corpus(args.corpus)
    trec.require_known(qrels, corpus, args.qrels, args.corpus)
    for run, path in zip(runs, args.negatives, strict=True):
        trec.require_known(run, corpus, path, args.corpus)
    negatives = StaticNegatives(runs, qrels, args.negatives_depth, training.seed)
    trec.require_covered(
        topics, negatives, args.topics, " or ".join(args.negatives), "negatives"
    )

    training.require_replaceable()
    set_seed(training.seed)
    encoder = DenseEncoder.load(args.encoder, passage_encoder="")
    if args.dropout is not None:
        encoder.set_dropout(args.dropout)
    dataset = StarDataset(
        topics, qrels, negatives, args.negatives_per_query, training.seed
    )
    trainer = StarTrainer(
        model=encoder,
        args=training,
        train_dataset=dataset,
        data_collator=StarCollator(
            encoder, corpus, qrels, args.query_length, args.passage_length
        ),
        callbacks=[TellEpoch(dataset)],
        star_loss=args.star_loss,
        alpha=args.alpha,
    )
    fit(trainer, encoder)
