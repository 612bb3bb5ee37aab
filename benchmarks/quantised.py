"""A search over product-quantised passages: ours, faiss, and decoding the corpus for it.

    python benchmarks/quantised.py

Codes and centroids are random: only their numbers count. ``decoding`` makes vectors of all
codes, a chunk at a time, and takes their products with the queries, without choosing the
best: what a step would cost that did not search the codes. ``a step's gradient`` decodes the
hits and takes the products' gradient for the centroids, as joint training does.
"""

import argparse

import numpy as np
import torch
from side_by_side import machine, medians, table

from dense_hn import DenseHNError, cli
from dense_hn.quantised import CHUNK, CODES, Codes


def main() -> None:
    """Measure from the command line."""
    parser = cli.parser("benchmarks/quantised.py", __doc__)
    parser.add_argument("--queries", type=int, default=32, help="default 32")
    parser.add_argument("--passages", type=int, default=1_000_000, help="(1,000,000)")
    parser.add_argument("--dimension", type=int, default=384, help="default 384")
    parser.add_argument("--bytes", type=int, nargs="+", default=[8, 48, 96])
    parser.add_argument("--hits", type=int, default=200, help="default 200")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (3)")
    args = parser.parse_args()
    print(
        f"{args.queries} queries, {args.passages:,} passages, {args.dimension} dimensions, "
        f"top {args.hits}; median of {args.repeats} rounds"
    )
    print(machine())
    print()
    head = ["bytes a passage", "search, ms", "faiss, ms", "decoding, ms"]
    head += ["a step's gradient, ms", "codes, GiB", "vectors, GiB"]
    print(table(head, [measure(args, number) for number in args.bytes]))


def measure(args: argparse.Namespace, parts: int) -> list[object]:
    """A row of the table."""
    draw = np.random.default_rng(0)
    stored = draw.integers(CODES, size=(args.passages, parts), dtype=np.uint8)
    shape = parts, CODES, args.dimension // parts
    codes = Codes(stored, draw.standard_normal(shape, np.float32), None)
    made = torch.Generator().manual_seed(0)
    queries = torch.randn(args.queries, args.dimension, generator=made)
    index = codes.as_index()
    asked = queries.numpy()
    ours, rows = codes.top_k(queries, codes.codes, args.hits)
    theirs, _ = index.search(asked, args.hits)
    apart = float((ours - torch.from_numpy(theirs)).abs().max())
    if not apart < 1e-3:
        raise DenseHNError(f"scores differ by {apart}: not the same work")

    @torch.no_grad()
    def decoding() -> None:
        for part in codes.codes.split(CHUNK):
            codes.take(part) @ queries.T

    def gradient() -> None:
        scores = codes.take(codes.codes[rows]) @ queries[:, :, None]
        torch.autograd.grad(scores.sum(), codes.centroids)

    works = {
        "ours": lambda: codes.top_k(queries, codes.codes, args.hits),
        "faiss": lambda: index.search(asked, args.hits),
        "decoding": decoding,
        "gradient": gradient,
    }
    taken = [1000 * seconds for seconds in medians(works, args.repeats).values()]
    size = 4 * args.passages * args.dimension
    return [str(parts), *taken, stored.nbytes / 2**30, size / 2**30]


if __name__ == "__main__":
    cli.run(main)
