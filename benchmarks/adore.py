"""ADORE steps over more and more passages: time by part, and memory.

    python benchmarks/adore.py
    python benchmarks/adore.py --encoder roberta-base --passages 8841823 --queries 256 \\
        --steps 200 --bf16                                                   on a GPU

Each size is a training of its own, `python -m dense_hn.train adore` in a process of its
own, whose costs.json is read. Beside it, in the same run: what faiss takes to search the
same number of queries, and one reading of the vectors. The vectors are in memory once;
what a process holds besides is in the last column.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from side_by_side import machine, medians, table
from workload import QUERY, encoder_of, texts, vectors_folder

from dense_hn import cli, trec
from dense_hn.train.trainer import costs_of
from dense_hn.vectors import Vectors

HITS = 200
# Training queries of MS MARCO, an epoch.
EPOCH = 502_939


def main() -> None:
    """Measure from the command line."""
    parser = cli.parser("benchmarks/adore.py", __doc__)
    parser.add_argument(
        "--encoder", choices=["minilm", "roberta-base"], default="minilm"
    )
    parser.add_argument("--queries", type=int, default=32, help="of a batch (32)")
    parser.add_argument(
        "--passages", type=int, nargs="+", default=[10_000, 100_000, 1_000_000]
    )
    parser.add_argument("--steps", type=int, default=30, help="default 30")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    args = parser.parse_args()
    print(
        f"{args.encoder}, {args.queries} queries a step, top {HITS}; {args.steps} steps"
    )
    print(machine())
    print()
    with tempfile.TemporaryDirectory() as folder:
        print(measure(args, Path(folder)))


def measure(args: argparse.Namespace, work: Path) -> str:
    """The table."""
    encoder = encoder_of(args.encoder, 24, 120)
    encoder.save(work / "encoder")
    queries = texts(encoder, QUERY, args.queries * args.steps, 1)
    topics = {str(n): text for n, text in enumerate(queries)}
    trec.write_topics(work / "topics.tsv", topics)
    trec.write_qrels(work / "qrels.txt", {qid: {qid: 1} for qid in topics})
    epoch = f"{EPOCH:,} queries, minutes"
    head = ["passages", "step, ms", "search", "encode", "loss", "backward", "update"]
    head += ["faiss search", "reading", epoch, "GiB", "vectors, GiB", "beyond, GiB"]
    rows = []
    for number in args.passages:
        vectors_folder(work / "vectors", encoder, number)
        step = training(args, work)
        ms = 1000 * step["seconds_per_step"]
        cells = [ms * step["shares"].get(name, 0.0) for name in head[2:7]]
        matrix = Vectors.load(work / "vectors").matrix
        size = matrix.nbytes / 2**30
        limits = others(matrix, args.queries)
        cells += [*limits, ms / 60_000 * EPOCH / args.queries]
        peak = step["peak_memory_gib"]
        cells += [peak, round(size, 3), peak - size]
        rows.append([f"{number:,}", ms, *cells])
    return table(head, rows)


def training(args: argparse.Namespace, work: Path) -> dict:
    """What a training says of its costs."""
    command = [sys.executable, "-m", "dense_hn.train", "adore"]
    for name in ("encoder", "vectors"):
        command += [f"--{name}", str(work / name)]
    command += ["--topics", str(work / "topics.tsv")]
    command += ["--qrels", str(work / "qrels.txt"), "--output_dir", str(work / "out")]
    command += ["--adore_hits", str(HITS), "--max_steps", str(args.steps)]
    command += ["--per_device_train_batch_size", str(args.queries)]
    command += ["--bf16", "true"] if args.bf16 else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(costs_of(work / "out").read_text())


def others(matrix: torch.Tensor, queries: int) -> list[float]:
    """Milliseconds of faiss's search, and of one reading."""
    if torch.cuda.is_available():
        vectors = matrix.half().cuda()
        copy = torch.empty_like(vectors)
        taken = medians({"copying": lambda: copy.copy_(vectors)}, 5)
        return ["", 1000 * taken["copying"] / 2]
    import faiss

    index = faiss.IndexFlatIP(matrix.shape[1])
    index.add(matrix.numpy())
    asked = matrix[:queries].numpy()
    works = {"faiss": lambda: index.search(asked, HITS), "reading": matrix.sum}
    return [1000 * seconds for seconds in medians(works, 5).values()]


if __name__ == "__main__":
    cli.run(main)
