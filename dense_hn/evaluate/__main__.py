"""Score TREC runs against qrels, as `trec_eval -c` does, and compare them.

python -m dense_hn.evaluate --qrels qrels.txt runs/bm25.txt runs/star.txt …

Measures are named as ir_measures names them (quote the brackets in a shell): RR, nDCG,
MAP or AP, R, P, Success and Judged, with a cut (RR@10; R, P, Success and Judged need
one) and, but for nDCG and Judged, the level from which judgements on are relevant (1, or
as in RR(rel=2)@10). What is reported on:

  MS MARCO passages, dev     RR@10 R@1000
  MS MARCO documents, dev    RR@100 R@100
  TREC DL passages           nDCG@10 'RR(rel=2)@10' 'MAP(rel=2)' 'R(rel=2)@100'
                             'R(rel=2)@1000'
  BEIR                       nDCG@10 R@100
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from dense_hn import DenseHNError, cli, trec
from dense_hn.evaluate import measures, significance, table
from dense_hn.files import whole_file
from dense_hn.names import unknown


def name_runs(paths: Sequence[str], names: Sequence[str]) -> list[str]:
    """A name for every run: those given, else the files' stems, else their paths.

    Raises:
        DenseHNError: another number of names than of runs, or two runs of one name.
    """
    stems = [Path(path.removesuffix(".gz")).stem for path in paths]
    if names and len(names) != len(paths):
        raise DenseHNError(f"--names: {len(names)} names for {len(paths)} runs")
    names = list(names) or (stems if len(set(stems)) == len(stems) else list(paths))
    for name in names:
        if names.count(name) > 1:
            raise DenseHNError(f"two runs are called {name!r}; give others by --names")
    return names


def require_per_query(path: str) -> None:
    """Refuse to replace a file that is none of :func:`write_per_query`'s.

    Raises:
        DenseHNError: it is another, such as a run before which the file's name is missing.
    """
    if Path(path).is_file():
        with open(path, "rb") as file:
            first = file.readline()
        if first and not first.startswith(b"qid\trun\t"):
            raise DenseHNError(
                f"--per_query: {path}: holds other things and would be replaced; name a "
                "new file"
            )


def write_per_query(path: str | Path, runs: Sequence[measures.Scored]) -> None:
    """Write a TSV: ``qid``, ``run`` and a column a measure; a row a topic and run."""
    columns = [*runs[0].values]
    with (
        whole_file(path) as partial,
        open(partial, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["qid", "run", *columns])
        for run in runs:
            for qid in run.values[columns[0]]:
                values = [run.values[measure][qid] for measure in columns]
                writer.writerow([qid, run.name, *values])


def main() -> None:
    """Score runs from the command line."""
    parser = cli.parser("dense_hn.evaluate", __doc__)
    parser.add_argument("--qrels", required=True, help="TREC's or BEIR's")
    parser.add_argument(
        "--measures",
        nargs="+",
        default=measures.DEFAULT,
        help=f"default: {' '.join(measures.DEFAULT)}",
    )
    parser.add_argument("--names", nargs="+", default=(), help="of the runs, in order")
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="the run that all others are compared with (default: the one above each)",
    )
    parser.add_argument(
        "--test",
        choices=significance.TESTS,
        default="t",
        help="paired test of the differences; p is Holm-corrected (default: t)",
    )
    parser.add_argument(
        "--format", choices=table.FORMATS, default="text", help="default: text"
    )
    parser.add_argument(
        "--per_query", metavar="FILE.tsv", help="write the value of every topic here"
    )
    parser.add_argument("runs", nargs="*", help="TREC runs")
    args = parser.parse_args()
    if not args.runs:
        raise DenseHNError(
            "no runs: name them before --measures and --names, which take all that "
            "follows them"
        )
    for measure in args.measures:
        measures.parse(measure)
    names = name_runs(args.runs, args.names)
    if args.baseline is not None and args.baseline not in names:
        raise DenseHNError(f"--baseline: {unknown('run', args.baseline, names)}")
    if args.per_query and Path(args.per_query).is_dir():
        raise DenseHNError(f"--per_query: {args.per_query} is a folder; name a file")
    if args.per_query:
        require_per_query(args.per_query)
    qrels = trec.read_qrels(args.qrels)
    # One after another: a run of MS MARCO takes a gigabyte.
    runs = [
        measures.score(name, qrels, trec.read_run(path), args.measures)
        for name, path in zip(names, args.runs, strict=True)
    ]
    if args.per_query:
        write_per_query(args.per_query, runs)
    compared = significance.compare(runs, args.test, args.baseline)
    print(table.FORMATS[args.format](compared))


if __name__ == "__main__":
    cli.run(main)
