"""dense_hn.diagnose over more and more passages: time and memory.

    python benchmarks/diagnose.py

Random vectors, topics with one relevant passage and 200 static negatives each; a process of
its own for every size, from its start to its end, figures included. The vectors are a file
that is read once; what the process holds besides is in the last column.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from side_by_side import machine, table
from workload import QUERY, encoder_of, texts, vectors_folder

from dense_hn import DenseHNError, cli, trec
from dense_hn.vectors import Vectors

NEGATIVES = 200


def main() -> None:
    """Measure from the command line."""
    parser = cli.parser("benchmarks/diagnose.py", __doc__)
    parser.add_argument(
        "--passages", type=int, nargs="+", default=[10_000, 100_000, 1_000_000]
    )
    parser.add_argument("--topics", type=int, default=500, help="default 500")
    args = parser.parse_args()
    print(f"{args.topics} topics, {NEGATIVES} static negatives each")
    print(machine())
    print()
    with tempfile.TemporaryDirectory() as folder:
        print(measure(args, Path(folder)))


def measure(args: argparse.Namespace, work: Path) -> str:
    """The table."""
    encoder = encoder_of("minilm", 24, 120)
    encoder.save(work / "encoder")
    queries = texts(encoder, QUERY, args.topics, 1)
    trec.write_topics(work / "topics.tsv", {str(n): q for n, q in enumerate(queries)})
    trec.write_qrels(
        work / "qrels.txt", {str(n): {str(n): 1} for n in range(args.topics)}
    )
    rows = []
    for number in args.passages:
        vectors_folder(work / "vectors", encoder, number)
        draw = random.Random(number)
        run = {
            str(topic): {
                str(docid): -float(rank)
                for rank, docid in enumerate(
                    draw.sample(range(number), min(NEGATIVES, number))
                )
            }
            for topic in range(args.topics)
        }
        trec.write_run(work / "run.txt", run, "random")
        seconds, peak = diagnosed(work)
        size = Vectors.load(work / "vectors").matrix.nbytes / 2**30
        rows.append([f"{number:,}", seconds, peak, round(size, 3), peak - size])
    head = ["passages", "seconds", "GiB", "vectors, GiB", "beyond, GiB"]
    return table(head, rows)


def diagnosed(work: Path) -> tuple[float, float]:
    """Seconds, and the most GiB that the process held, pages of the file included."""
    command = [sys.executable, "-m", "dense_hn.diagnose"]
    command += ["--system", "random", str(work / "encoder"), str(work / "vectors")]
    command += [
        "--topics",
        str(work / "topics.tsv"),
        "--qrels",
        str(work / "qrels.txt"),
    ]
    command += ["--negatives", str(work / "run.txt"), "--output", str(work / "found")]
    started = time.perf_counter()
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        status = Path(f"/proc/{process.pid}/status")
        # What getrusage tells of a child has been its parent's, too.
        while process.poll() is None:
            lines = status.read_text().splitlines()
            found = [line.split()[1] for line in lines if line.startswith("VmHWM")]
            peak = max(peak, *map(float, found), 0.0)
            time.sleep(0.02)
    if process.returncode:
        raise DenseHNError(f"dense_hn.diagnose ended with {process.returncode}")
    return time.perf_counter() - started, peak / 2**20


if __name__ == "__main__":
    cli.run(main)
