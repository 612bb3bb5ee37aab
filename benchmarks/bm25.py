"""BM25 for many topics: ours, and `pyserini.search.lucene` with as many threads.

    python benchmarks/bm25.py

Both are commands of their own, from the start of Python and Java to a run on disk, on
one index of the built-in collection, several times over. Their scores must be the same.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from side_by_side import machine, medians, table

from dense_hn import DenseHNError, bm25, cli, trec
from dense_hn.collections import pydoc

HITS, COPIES = 200, 8
OURS = "dense_hn.bm25"


def main() -> None:
    """Measure from the command line."""
    parser = cli.parser("benchmarks/bm25.py", __doc__)
    parser.add_argument("--topics", type=int, default=2000, help="default 2000")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (3)")
    args = parser.parse_args()
    print(f"{args.topics:,} topics, top {HITS}; median of {args.repeats} rounds")
    print(machine())
    print()
    with tempfile.TemporaryDirectory() as folder:
        print(measure(args, Path(folder)))


def measure(args: argparse.Namespace, work: Path) -> str:
    """The table."""
    corpus = pydoc.read().corpus
    copies = {f"{n}-{d}": text for n in range(COPIES) for d, text in corpus.items()}
    bm25.index(copies, work / "index")
    words = " ".join(corpus.values()).split()
    step = len(words) // (args.topics + 1)
    topics = {
        str(n): " ".join(words[n * step : n * step + 6]) for n in range(args.topics)
    }
    trec.write_topics(work / "topics.tsv", topics)
    index = ["--index", str(work / "index"), "--topics", str(work / "topics.tsv")]
    index += ["--hits", str(HITS)]
    ours = [*index, "--output", str(work / "ours.txt")]
    threads = str(os.cpu_count())
    theirs = [*index, "--output", str(work / "theirs.txt"), "--bm25"]
    theirs += ["--threads", threads, "--batch-size", "32"]
    works = {
        OURS: lambda: run("dense_hn.bm25", "search", *ours),
        f"pyserini.search.lucene --threads {threads} --batch-size 32": lambda: run(
            "dense_hn.pyserini", "search.lucene", *theirs
        ),
    }

    def run(module: str, *arguments: str) -> None:
        if module == "dense_hn.bm25":
            # It leaves alone what it has made.
            (work / "ours.txt").unlink(missing_ok=True)
        command = [sys.executable, "-m", module, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    for work_once in works.values():
        work_once()
    require_same(trec.read_run(work / "ours.txt"), trec.read_run(work / "theirs.txt"))
    taken = medians(works, args.repeats)
    rows = [[name, args.topics / s, s, s / taken[OURS]] for name, s in taken.items()]
    return table(["", "topics/s", "seconds", "times ours"], rows)


def require_same(ours: trec.Run, theirs: trec.Run) -> None:
    """Check that two runs have the same scores, rank by rank."""
    if ours.keys() != theirs.keys():
        raise DenseHNError("other topics have hits: not the same work")
    for qid, hits in ours.items():
        pairs = zip(sorted(hits.values()), sorted(theirs[qid].values()), strict=True)
        if any(abs(one - other) > 1e-3 for one, other in pairs):
            raise DenseHNError(f"topic {qid} has other scores: not the same work")


if __name__ == "__main__":
    cli.run(main)
