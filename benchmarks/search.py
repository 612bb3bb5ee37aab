"""Exact top-k: ours, faiss, and what the machine could do at best.

    python benchmarks/search.py
    python benchmarks/search.py --passages 8841823 --dimension 768      on a GPU

Vectors are random and of length one. On a GPU they are float16, and faiss is left out.
The limits: the bare product gives all scores and takes none; reading is one pass over
the vectors (on a GPU at the rate at which they are copied, counting both ways).
"""

import argparse

import torch
from side_by_side import machine, medians, table

from dense_hn import DenseHNError, cli, search

OURS = "dense_hn.search.top_k"
# A large training set, extrapolated.
MINED = 500_000


def main() -> None:
    """Measure from the command line."""
    parser = cli.parser("benchmarks/search.py", __doc__)
    parser.add_argument("--queries", type=int, default=32, help="default 32")
    parser.add_argument("--passages", type=int, default=200_000, help="(200,000)")
    parser.add_argument("--dimension", type=int, default=384, help="default 384")
    parser.add_argument("--hits", type=int, default=200, help="default 200")
    parser.add_argument("--repeats", type=int, default=9, help="rounds (9)")
    args = parser.parse_args()
    print(
        f"{args.queries} queries, {args.passages:,} passages, {args.dimension} ", end=""
    )
    print(f"dimensions, top {args.hits}; median of {args.repeats} rounds")
    print(machine())
    print()
    print(measure(args))


def measure(args: argparse.Namespace) -> str:
    """The table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    kind = torch.float16 if device == "cuda" else torch.float32

    def unit(number: int) -> torch.Tensor:
        made = torch.empty(number, args.dimension, dtype=kind, device=device)
        for part in made.split(1_000_000):
            part.normal_(generator=generator)
            part /= part.float().norm(dim=1, keepdim=True)
        return made

    queries, vectors = unit(args.queries), unit(args.passages)
    works = {OURS: lambda: search.top_k(queries, vectors, args.hits)}
    if device == "cuda":
        # As many queries at a time as there is memory for.
        free, _ = torch.cuda.mem_get_info()
        fit = max(1, int(free // (4 * 2 * len(vectors))))
        works["product and torch.topk"] = lambda: [
            (part @ vectors.T).topk(args.hits) for part in queries.split(fit)
        ]
    else:
        import faiss

        index = faiss.IndexFlatIP(args.dimension)
        index.add(vectors.numpy())
        asked = queries.numpy()
        works["faiss.IndexFlatIP"] = lambda: index.search(asked, args.hits)
        works["product and torch.topk"] = lambda: (queries @ vectors.T).topk(args.hits)
        works["bare product, queries @ vectors.T"] = lambda: queries @ vectors.T
        works["bare product, vectors @ queries.T"] = lambda: vectors @ queries.T
        works["reading the vectors (torch.sum)"] = vectors.sum
    require_exact(queries, vectors, args.hits)
    if device == "cuda":
        copy = torch.empty_like(vectors)
        works["copying the vectors"] = lambda: copy.copy_(vectors)
    taken = medians(works, args.repeats)
    if device == "cuda":
        # A copy reads and writes.
        taken["reading the vectors at that rate"] = taken["copying the vectors"] / 2
    head = ["", "ms", "times ours", f"{MINED:,} queries, minutes"]
    all_of_them = MINED / args.queries / 60
    rows = [[n, 1000 * s, s / taken[OURS], s * all_of_them] for n, s in taken.items()]
    return table(head, rows)


def require_exact(queries: torch.Tensor, vectors: torch.Tensor, hits: int) -> None:
    """Compare our scores with those of all products, for some of the queries."""
    ours, _ = search.top_k(queries[:4], vectors, hits)
    # A million at a time, or a card would need room for all of them in float32.
    parts = [queries[:4].float() @ part.float().T for part in vectors.split(1_000_000)]
    theirs = torch.cat(parts, dim=1).topk(hits).values
    apart = float((ours - theirs).abs().max())
    if not apart < 1e-5:
        raise DenseHNError(f"scores differ by {apart}: not the same work")


if __name__ == "__main__":
    cli.run(main)
