"""Encoding a corpus: ours, and sentence-transformers' `encode`.

    python benchmarks/encode.py
    python benchmarks/encode.py --encoder roberta-base --passages 200000 --bf16   on a GPU

Ours goes from texts to a folder of vectors on disk, tokenising included; theirs from
texts to an array, with its default batch and a larger one. The limit is what the layers'
products would take at the rate of a large one, no padding.
"""

import argparse
import json
import os
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import torch
from side_by_side import machine, medians, table
from workload import PASSAGE, encoder_of, layer_work, product_rate, texts, theirs

from dense_hn import DenseHNError, cache, cli
from dense_hn.collections.corpus import Corpus
from dense_hn.encode import COSTS, encode_corpus

OURS = "dense_hn.encode"


def main() -> None:
    """Measure from the command line."""
    parser = cli.parser("benchmarks/encode.py", __doc__)
    parser.add_argument(
        "--encoder", choices=["minilm", "roberta-base"], default="minilm"
    )
    parser.add_argument("--passages", type=int, default=2000, help="default 2000")
    parser.add_argument("--passage_length", type=int, default=128, help="default 128")
    parser.add_argument("--bf16", action="store_true", help="layers in bfloat16")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (3)")
    args = parser.parse_args()
    print(
        f"{args.encoder}, {args.passages:,} passages cut at {args.passage_length} "
        f"tokens; median of {args.repeats} rounds"
    )
    print(machine())
    print()
    with tempfile.TemporaryDirectory() as folder:
        os.environ[cache.VARIABLE] = f"{folder}/cache"
        print(measure(args, Path(folder)))


def measure(args: argparse.Namespace, folder: Path) -> str:
    """The table."""
    encoder = encoder_of(args.encoder, 24, args.passage_length)
    passages = texts(encoder, PASSAGE, args.passages, 2)
    other = theirs(encoder, folder / "encoder", args.passage_length)
    kind = torch.bfloat16 if args.bf16 else torch.float32
    cast = torch.autocast(encoder.device.type, kind, enabled=args.bf16)
    rounds = count()

    def ours() -> np.ndarray:
        # Docids of their own, so that nothing is in the cache from before.
        number = next(rounds)
        corpus = Corpus.of({f"{number}-{n}": t for n, t in enumerate(passages)})
        out = folder / f"vectors{number}"
        half = "bf16" if args.bf16 else None
        return encode_corpus(encoder, corpus, out, half).matrix.numpy()

    def encode(size: int) -> np.ndarray:
        with cast:
            return other.encode(passages, batch_size=size, show_progress_bar=False)

    apart = float(np.abs(ours() - encode(32)).max())
    if not apart < (0.05 if args.bf16 else 1e-4):
        raise DenseHNError(f"vectors differ by {apart}: not the same work")
    works = {OURS: ours}
    for size in (32, 128):
        works[f"sentence-transformers, batch_size={size}"] = lambda s=size: encode(s)
    taken = medians(works, args.repeats)
    lengths = [len(ids) for ids in encoder.tokenize(passages, "passage")]
    limit = layer_work(encoder, lengths) / product_rate(encoder.device.type, kind)
    taken["limit: the layers' products"] = limit
    rows = [
        [name, args.passages / s, 1000 * s, s / taken[OURS]]
        for name, s in taken.items()
    ]
    last = folder / f"vectors{next(rounds) - 1}" / COSTS
    facts = json.loads(last.read_text())
    shares = ", ".join(f"{name} {share:.1%}" for name, share in facts["shares"].items())
    note = f"Ours: {shares}; {facts['padding_share']:.1%} of the tokens are padding."
    return f"{table(['', 'passages/s', 'ms', 'times ours'], rows)}\n\n{note}"


if __name__ == "__main__":
    cli.run(main)
