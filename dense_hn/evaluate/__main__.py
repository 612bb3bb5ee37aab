"""Score TREC runs against qrels, as `trec_eval -c` does, or by answers, and compare them.

python -m dense_hn.evaluate --qrels qrels.txt runs/bm25.txt runs/star.txt …
python -m dense_hn.evaluate --answers nq-test.qa.csv --corpus psgs_w100.tsv.gz runs/dpr.txt

Measures are named as ir_measures names them (quote the brackets in a shell): RR, nDCG,
MAP or AP, R, P, Success and Judged, with a cut (RR@10; R, P, Success and Judged need
one) and, but for nDCG and Judged, the level from which judgements on are relevant (1, or
as in RR(rel=2)@10). What is reported on:

  MS MARCO passages, dev     RR@10 R@1000
  MS MARCO documents, dev    RR@100 R@100
  TREC DL passages           nDCG@10 'RR(rel=2)@10' 'MAP(rel=2)' 'R(rel=2)@100'
                             'R(rel=2)@1000'
  BEIR                       nDCG@10 R@100
  open-domain QA             Answer@20 Answer@100

Answer@k is top-k accuracy, the share of topics with an answer in the text of their first k
hits, as DPR counts it. It needs --answers and --corpus, and no qrels; where these are
given, it is for their topics.
"""

import argparse
import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dense_hn import DenseHNError, cli, maxp, trec
from dense_hn.answers import accuracy
from dense_hn.answers.arguments import add_arguments
from dense_hn.answers.files import read_answers
from dense_hn.answers.match import Finder, finders, searchable
from dense_hn.answers.passages import read_passages
from dense_hn.evaluate import measures, significance, table
from dense_hn.files import require_file_or_none, whole_file
from dense_hn.names import unknown

log = logging.getLogger("dense_hn")


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


def divide(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The measures that qrels give, and those that answers give.

    Raises:
        DenseHNError: a measure that is none, or whose files are not named; files without
            a measure that needs them.
    """
    names = args.measures or [
        *(measures.DEFAULT if args.qrels else ()),
        *(accuracy.DEFAULT if args.answers else ()),
    ]
    if not names:
        raise DenseHNError("name --qrels, --answers with --corpus, or both")
    by_answers = [name for name in names if args.answers and accuracy.is_accuracy(name)]
    by_qrels = [name for name in names if name not in by_answers]
    for name in by_qrels:
        measures.parse(name)
    for name in by_answers:
        accuracy.cut(name)
    if by_qrels and not args.qrels:
        raise DenseHNError(f"measure {by_qrels[0]}: it needs --qrels")
    if args.answers and not by_answers:
        raise DenseHNError("--answers: add Answer@20, or another cut, to --measures")
    if bool(args.answers) != bool(args.corpus):
        raise DenseHNError("--answers and --corpus: name both, or neither")
    if not args.answers and (args.split or args.regex):
        raise DenseHNError("--split and --regex say how --answers are read; name those")
    if args.max_passage and by_answers:
        raise DenseHNError(
            f"--max_passage: {by_answers[0]} looks for answers in what a run lists, and "
            "documents' texts are not in a corpus of passages; leave one of them out"
        )
    return by_qrels, by_answers


def add_accuracy(
    runs: Sequence[measures.Scored],
    first: Sequence[Mapping[str, Sequence[str]]],
    qrels: trec.Qrels,
    found: Mapping[str, Finder],
    names: Sequence[str],
    args: argparse.Namespace,
) -> list[measures.Scored]:
    """The runs with their top-k accuracies.

    Args:
        runs: in the order of the command line.
        first: hits of each, see accuracy.first_hits.
        qrels: of all topics; without judgements where there are none.
        found: finders of all topics.
        names: of the accuracies.
        args: the command line.

    Raises:
        DenseHNError: a corpus that cannot be read, or that lacks a hit or a relevant
            passage.
    """
    relevant = {qid: trec.positives(qrels, qid) for qid in found}
    wanted = set().union(*relevant.values())
    for hits in first:
        wanted.update(*hits.values())
    passages = read_passages(args.corpus, wanted)
    for hits, path in zip((*first, relevant), (*args.runs, args.qrels), strict=True):
        rows = {qid: dict.fromkeys(docids) for qid, docids in hits.items()}
        trec.require_known(rows, passages, path, args.corpus)
    texts = {
        docid: searchable(passage.text, args.regex)
        for docid, passage in passages.items()
    }
    if args.qrels:
        log.info(
            "%s: %d of %d topics have an answer in a relevant passage",
            *(args.answers, accuracy.answerable(qrels, found, texts), len(found)),
        )
    return [
        replace(run, values=run.values | accuracy.accuracy(hits, found, texts, names))
        for run, hits in zip(runs, first, strict=True)
    ]


def tell_unjudged(run: trec.Run, path: str, qrels: trec.Qrels, qrels_path: str) -> None:
    """Log that a run has no judged hit, whether of documents where the other has passages."""
    hits = ((qid, docid) for qid, of in run.items() for docid in of)
    if not any(docid in qrels.get(qid, ()) for qid, docid in hits):
        log.warning(
            "%s: none of its hits is judged in %s; is it a run of that corpus? (where one "
            "has passages D#0 and the other documents D: --max_passage)",
            *(path, qrels_path),
        )


def arguments() -> argparse.Namespace:
    """The command line's.

    Raises:
        DenseHNError: it names no runs.
    """
    parser = cli.parser("dense_hn.evaluate", __doc__)
    parser.add_argument("--qrels", metavar="FILE", help="TREC's or BEIR's")
    add_arguments(parser, required=False)
    parser.add_argument(
        "--measures",
        nargs="+",
        help=f"default: {' '.join(measures.DEFAULT)} with --qrels, "
        f"{' '.join(accuracy.DEFAULT)} with --answers",
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
        "--max_passage",
        action="store_true",
        help="qrels and runs list passages D#0, D#1, … (or D): score documents, each with "
        "its best passage's score",
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
    return args


def main() -> None:
    """Score runs from the command line."""
    args = arguments()
    by_qrels, by_answers = divide(args)
    names = name_runs(args.runs, args.names)
    if args.baseline is not None and args.baseline not in names:
        raise DenseHNError(f"--baseline: {unknown('run', args.baseline, names)}")
    if args.per_query:
        require_per_query(require_file_or_none(args.per_query))
    asked = read_answers(args.answers, args.split) if args.answers else {}
    qrels = trec.read_qrels(args.qrels) if args.qrels else {qid: {} for qid in asked}
    if args.max_passage:
        qrels = maxp.of_documents(qrels)
    named_by = args.qrels or args.answers
    measures.tell_without_relevant(qrels, by_qrels)
    found = {}
    if by_answers:
        found = finders(asked, qrels, named_by, args.answers, args.regex)
    depth = max(map(accuracy.cut, by_answers), default=0)
    runs, first = [], []
    # One after another: a run of MS MARCO takes a gigabyte.
    for name, path in zip(names, args.runs, strict=True):
        run = trec.read_run(path)
        if args.max_passage:
            run = maxp.of_documents(run)
        if args.qrels:
            tell_unjudged(run, path, qrels, args.qrels)
        source = "qrels" if args.qrels else "answers"
        runs.append(measures.score(name, qrels, run, by_qrels, source))
        if by_answers:
            first.append(accuracy.first_hits(run, qrels, depth))
    if by_answers:
        runs = add_accuracy(runs, first, qrels, found, by_answers, args)
    if args.per_query:
        write_per_query(args.per_query, runs)
    compared = significance.compare(runs, args.test, args.baseline)
    print(table.FORMATS[args.format](compared))


if __name__ == "__main__":
    cli.run(main)
