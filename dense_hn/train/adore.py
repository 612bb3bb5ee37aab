"""ADORE: dynamic hard negatives, the exact top-k of the whole corpus at every step.

    python -m dense_hn.train adore --encoder models/star --vectors vectors/star \\
        --topics train.tsv --qrels train.qrels --output_dir models/adore

Only the query encoder is trained; the passage vectors stay as they are, so an index
made of them needs no change. Queries are encoded without dropout: one forward pass then
serves search and loss, and the negatives are those of the encoder as it will be used.

Source: arXiv 2104.08051, section 5.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, set_seed

from dense_hn import DenseHNError, losses, search, trec
from dense_hn.encode import Vectors
from dense_hn.encoder import DenseEncoder
from dense_hn.train.trainer import DenseTrainingArguments, fit


@dataclass(kw_only=True, slots=True)
class Arguments:
    """What ADORE trains on, and how deep it looks."""

    encoder: str = field(
        metadata={"help": "Start from this folder: the encoder that made the vectors."}
    )
    vectors: str = field(metadata={"help": "Folder from dense_hn.encode."})
    topics: str = field(metadata={"help": "Training topics, TSV."})
    qrels: str = field(
        metadata={"help": "TREC qrels: relevance 1 or more is relevant."}
    )
    adore_hits: int = field(
        default=200, metadata={"help": "Hits retrieved for each query at every step."}
    )
    metric_cut: int = field(
        default=200, metadata={"help": "LambdaLoss weighs pairs by RR@metric_cut."}
    )
    query_length: int | None = field(
        default=None,
        metadata={"help": "Tokens of a query in training, if not the encoder's own."},
    )

    def __post_init__(self) -> None:
        if self.adore_hits < 1 or self.metric_cut < 1:
            raise DenseHNError("adore: adore_hits and metric_cut start at 1")


class AdoreDataset(Dataset):
    """Training topics with the corpus rows of all their positives."""

    def __init__(
        self,
        topics: Mapping[str, str],
        qrels: Mapping[str, Mapping[str, int]],
        docids: Sequence[str],
    ) -> None:
        row = {docid: number for number, docid in enumerate(docids)}
        self._items = [
            {"query": text, "positives": [row[d] for d in trec.positives(qrels, qid)]}
            for qid, text in topics.items()
        ]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"query": text, "positives": rows}``."""
        return self._items[index]


class AdoreCollator:
    """Items of an :class:`AdoreDataset` to one batch."""

    def __init__(self, encoder: DenseEncoder, query_length: int | None = None) -> None:
        self._queries = partial(encoder.tokenize, kind="query", length=query_length)

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tokens of B queries; ``rows`` [B, P] of their positives, and which are real."""
        rows = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(item["positives"]) for item in items],
            batch_first=True,
            padding_value=-1,
        )
        return {
            "queries": self._queries([item["query"] for item in items]),
            "rows": rows.clamp(min=0),
            "is_positive": rows >= 0,
        }


class AdoreTrainer(Trainer):
    """Retrieves with the current query vectors, and applies LambdaLoss to the hits."""

    def __init__(
        self, *, vectors: Tensor, hits: int, metric_cut: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._vectors = vectors.to(self.args.device)
        self._hits = hits
        self._cut = metric_cut

    def compute_loss(self, model, inputs, return_outputs=False, **_) -> Tensor:
        """Called by the Trainer with a batch of :class:`AdoreCollator`."""
        model.eval()
        queries = model(**inputs["queries"])
        _, hits = search.top_k(queries.detach(), self._vectors, self._hits)
        scaled = self.model.settings.scale * queries[:, :, None]
        retrieved = (self._vectors[hits] @ scaled)[:, :, 0]
        rows, is_positive = inputs["rows"], inputs["is_positive"]
        positive = (self._vectors[rows] @ scaled)[:, :, 0]
        ranks = losses.positive_ranks(positive, rows, is_positive, hits)
        known = (hits[:, None, :] == rows[:, :, None]) & is_positive[:, :, None]
        loss = losses.lambda_loss(
            positive, ranks, is_positive, retrieved, ~known.any(dim=1), self._cut
        )
        return (loss, {"hits": hits}) if return_outputs else loss


def require_negatives(
    args: Arguments,
    topics: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    passages: int,
) -> None:
    """Check that more hits are retrieved than any query has positives.

    Raises:
        DenseHNError: names the query with the most.
    """
    number = {qid: len(trec.positives(qrels, qid)) for qid in topics}
    most = max(number, key=number.get)
    if number[most] >= min(args.adore_hits, passages):
        raise DenseHNError(
            f"{args.qrels}: query {most!r} has {number[most]} relevant documents and "
            f"adore_hits is {args.adore_hits}: no negative would be left; raise it"
        )


def train(args: Arguments, training: DenseTrainingArguments) -> None:
    """Train with ADORE and write the query encoder to ``training.output_dir``.

    All input is read and checked before the encoder is loaded.

    Raises:
        DenseHNError: a file that cannot be read, a relevant docid without a vector, a
            topic without positives, vectors that another encoder made, fewer hits than
            a query has positives (there would be no negative), a flag without effect.
    """
    if training.gradient_checkpointing:
        raise DenseHNError(
            "adore: transformers checkpoints only layers in training mode, and queries "
            "are encoded without dropout; use --gradient_cache instead of "
            "--gradient_checkpointing"
        )
    topics, qrels = trec.read_judged(args.topics, args.qrels)
    vectors = Vectors.load(args.vectors)
    trec.require_known(qrels, set(vectors.docids), args.qrels, args.vectors)
    require_negatives(args, topics, qrels, len(vectors.docids))
    training.require_replaceable()

    set_seed(training.seed)
    encoder = DenseEncoder.load(args.encoder)
    vectors.require_made_by(encoder, args.encoder)
    encoder.settings = replace(encoder.settings, passage_encoder=vectors.encoder)
    trainer = AdoreTrainer(
        model=encoder,
        args=training,
        train_dataset=AdoreDataset(topics, qrels, vectors.docids),
        data_collator=AdoreCollator(encoder, args.query_length),
        vectors=vectors.matrix,
        hits=args.adore_hits,
        metric_cut=args.metric_cut,
    )
    fit(trainer, encoder)
