"""A STAR step: ours, and sentence-transformers' MultipleNegativesRankingLoss.

    python benchmarks/star_step.py
    python benchmarks/star_step.py --encoder roberta-base --queries 256 --bf16    on a GPU

Both take the same texts, encoder, loss and optimiser, and go from texts to changed
weights; ours finds the tokens of passages in its cache, as it does from the second epoch
on. Every query has one positive and one hard negative, and all of the batch as
negatives. The limit is what the layers' products would take at the rate of a large one,
three times for forward and backward, no padding. Before anything is timed, both losses
are compared, without dropout.
"""

import argparse
import os
import tempfile
from pathlib import Path

import torch
from sentence_transformers.sentence_transformer import losses
from side_by_side import machine, medians, table
from workload import PASSAGE, QUERY, encoder_of, layer_work, product_rate, texts, theirs

from dense_hn import DenseHNError, cache, cli
from dense_hn.collections.corpus import Corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.train.batches import JointCollator
from dense_hn.train.joint import JointTrainer
from dense_hn.train.training_arguments import DenseTrainingArguments

OURS = "dense_hn, STAR step"
THEIRS = "sentence-transformers, MultipleNegativesRankingLoss"
SCALE, RATE = 20.0, 1e-6


def main() -> None:
    """Measure from the command line."""
    parser = cli.parser("benchmarks/star_step.py", __doc__)
    parser.add_argument(
        "--encoder", choices=["minilm", "roberta-base"], default="minilm"
    )
    parser.add_argument("--queries", type=int, default=32, help="default 32")
    parser.add_argument("--query_length", type=int, default=24, help="default 24")
    parser.add_argument("--passage_length", type=int, default=120, help="default 120")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--compile", action="store_true", help="ours, --torch_compile")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    args = parser.parse_args()
    print(
        f"{args.encoder}, {args.queries} queries, {2 * args.queries} passages, cut at "
        f"{args.query_length} and {args.passage_length} tokens; median of "
        f"{args.repeats} rounds"
    )
    print(machine())
    print()
    with tempfile.TemporaryDirectory() as folder:
        os.environ[cache.VARIABLE] = f"{folder}/cache"
        print(measure(args, folder))


def measure(args: argparse.Namespace, folder: str) -> str:
    """The table."""
    encoder = encoder_of(args.encoder, args.query_length, args.passage_length)
    queries = texts(encoder, QUERY, args.queries, 1)
    passages = texts(encoder, PASSAGE, 2 * args.queries, 2)
    kind = torch.bfloat16 if args.bf16 else torch.float32
    # Theirs first: ours sets a scale, and compiles.
    other = Theirs(args, encoder, queries, passages, folder)
    ours = Ours(args, encoder, queries, passages, folder)
    apart = abs(ours.loss() - other.loss())
    if not apart < (0.05 if args.bf16 else 1e-3):
        raise DenseHNError(f"the two losses differ by {apart}: not the same work")

    works = {OURS: ours.step, THEIRS: other.step}
    works["dense_hn, making the batch (part of its step)"] = ours.batch
    taken = medians(works, args.repeats)
    lengths = [
        len(ids)
        for some, side in ((queries, "query"), (passages, "passage"))
        for ids in encoder.tokenize(some, side)
    ]
    limit = 3 * layer_work(encoder, lengths) / product_rate(encoder.device.type, kind)
    taken["limit: the layers' products, forward and backward"] = limit
    rows = [[name, 1000 * s, s / taken[OURS]] for name, s in taken.items()]
    padded = sum(one["input_ids"].numel() for one in ours.slices())
    share = 1 - sum(lengths) / padded
    note = f"\n\n{share:.1%} of the tokens that go through our layers are padding."
    return table(["", "ms", "times ours"], rows) + note


class Ours:
    """Steps as dense_hn.train does them."""

    def __init__(
        self,
        args: argparse.Namespace,
        encoder: DenseEncoder,
        queries: list[str],
        passages: list[str],
        folder: str,
    ) -> None:
        corpus = Corpus.of({str(n): text for n, text in enumerate(passages)})
        number = len(queries)
        self._items = [
            {"topics": {str(n): query}, "positive": str(n), "random": []}
            | {"hard": [str(number + n)]}
            for n, query in enumerate(queries)
        ]
        encoder.settings.scale = SCALE
        excluded = {str(n): {str(n)} for n in range(number)}
        self._collate = JointCollator(encoder, corpus, excluded)
        training = DenseTrainingArguments(
            output_dir=f"{folder}/trained",
            learning_rate=RATE,
            bf16=args.bf16,
            use_cpu=not torch.cuda.is_available(),
        )
        self._trainer = JointTrainer(model=encoder, args=training, star_loss="infonce")
        self._trainer.create_optimizer()
        if args.compile:
            encoder.model.compile(dynamic=True)
        self._model, self._trainer.optimizer = self._trainer.accelerator.prepare(
            encoder, self._trainer.optimizer
        )

    def batch(self) -> dict:
        """From texts to tokens and masks."""
        return self._collate(self._items)

    def slices(self) -> list[dict]:
        """What goes through the layers."""
        batch = self.batch()
        return batch["queries"]["slices"] + batch["passages"]["slices"]

    @torch.no_grad()
    def loss(self) -> float:
        """Without dropout."""
        inputs = self._trainer._prepare_inputs(self.batch())
        return float(self._trainer.compute_loss(self._model.eval(), inputs))

    def step(self) -> None:
        """From texts to changed weights."""
        self._model.train()
        inputs = self._trainer._prepare_inputs(self.batch())
        loss = self._trainer.compute_loss(self._model, inputs)
        self._trainer.accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._trainer.optimizer.step()
        self._model.zero_grad()


class Theirs:
    """Steps as a training with sentence-transformers does them."""

    def __init__(
        self,
        args: argparse.Namespace,
        encoder: DenseEncoder,
        queries: list[str],
        passages: list[str],
        folder: str,
    ) -> None:
        number = len(queries)
        self._columns = [queries, passages[:number], passages[number:]]
        self._model = theirs(encoder, Path(folder) / "encoder", args.passage_length)
        self._loss = losses.MultipleNegativesRankingLoss(self._model, scale=SCALE)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=RATE, weight_decay=0, fused=True
        )
        self._cast = torch.autocast(
            encoder.device.type, torch.bfloat16, enabled=args.bf16
        )

    def _forward(self) -> torch.Tensor:
        features = []
        for column in self._columns:
            tokens = self._model.preprocess(column)
            features.append({k: _on(v, self._model.device) for k, v in tokens.items()})
        with self._cast:
            return self._loss(features, None)

    @torch.no_grad()
    def loss(self) -> float:
        """Without dropout."""
        self._model.eval()
        return float(self._forward())

    def step(self) -> None:
        """From texts to changed weights."""
        self._model.train()
        self._forward().backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()


def _on(value: object, device: torch.device) -> object:
    return value.to(device) if isinstance(value, torch.Tensor) else value


if __name__ == "__main__":
    cli.run(main)
