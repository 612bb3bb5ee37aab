"""How much of a first stage's gain is left after a cross-encoder re-ranks it.

    python integrations/pyserini/cascade.py --model cross --runs bm25.txt star.txt adore.txt \\
        --topics test.tsv --qrels test.qrels --corpus corpus.jsonl --output cascade

re-ranks the first hits of every run at several depths, and writes the runs and one page of
tables, ``table.md``: each run as it is and re-ranked, what each has more than the first
run, and what each has more than the run before it, with the share of that which is left.
Pairs that several runs or depths have are scored once; after a stop, the same command goes
on.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np

from dense_hn import DenseHNError, cli, trec
from dense_hn.cross_encoder import CrossEncoder
from dense_hn.evaluate import measures, significance
from dense_hn.evaluate.table import chance
from dense_hn.files import whole_file
from dense_hn.rerank import add_model, output_of, rerank_together

MEASURES = ("nDCG@10", "RR@10")
SEED = 42
# Of a system by measure, a row of topics' values a column: the first stage, and each depth.
Values = dict[str, dict[str, list[np.ndarray]]]


def cascade(args: argparse.Namespace) -> None:
    """Re-rank, score, and write the table.

    Raises:
        DenseHNError: before anything is scored: a file that cannot be read, two runs of one
            name, no topic that is judged, a sample larger than there are topics, a run that
            would be replaced.
    """
    depths = sorted(args.depth)
    runs = {path.name.partition(".")[0]: trec.read_run(path) for path in args.runs}
    if len(runs) < max(2, len(args.runs)):
        raise DenseHNError("--runs: two at least, each with a name of its own")
    topics, qrels = trec.read_topics(args.topics), trec.read_qrels(args.qrels)
    judged = [qid for qid in topics if qid in qrels]
    trec.tell_uncovered(topics, {*judged}, args.topics, args.qrels, "judgement")
    number = len(judged) if args.sample is None else args.sample
    if not 1 <= number <= len(judged):
        raise DenseHNError(f"--sample is {number}; {len(judged)} topics are judged")
    kept = set(Random(f"{SEED} topics").sample(judged, number))
    chosen = [qid for qid in judged if qid in kept]
    for name, run in runs.items():
        trec.tell_uncovered(dict.fromkeys(chosen, ""), run, args.topics, name, "hit")

    given = {Path(path).resolve() for path in args.runs}
    written = [args.output / f"{name}.txt" for name in runs]
    written += [output_of(path, depth) for path in written for depth in depths]
    for path in written:
        if path.resolve() in given:
            raise DenseHNError(f"{path}: is one of --runs; name another --output")
        if written.count(path) > 1:
            raise DenseHNError(f"{path}: two runs would go there; rename one of --runs")

    asked = args.output / "topics.tsv"
    trec.write_topics(asked, {qid: topics[qid] for qid in chosen})
    own = {qid: qrels[qid] for qid in chosen}
    first = {
        name: {qid: run[qid] for qid in chosen if qid in run}
        for name, run in runs.items()
    }
    values: Values = {name: {measure: [] for measure in MEASURES} for name in runs}

    def keep(name: str, path: Path, run: trec.Run) -> None:
        trec.write_run(path, run, "cascade")
        found = measures.per_query(own, trec.read_run(path), MEASURES)
        for measure, columns in values[name].items():
            columns.append(np.array(list(found[measure].values())))

    for name, run in first.items():
        keep(name, args.output / f"{name}.txt", run)
    cross = CrossEncoder.load(args.model, args.length)
    scores = args.output / "scores" / "pairs.txt"
    for name, depth, run in rerank_together(
        cross, first, asked, args.corpus, depths, scores, args.half
    ):
        keep(name, output_of(args.output / f"{name}.txt", depth), run)
    text = page(values, depths, len(chosen))
    with whole_file(args.output / "table.md") as partial:
        partial.write_text(f"{text}\n", encoding="utf-8")
    print(text)


def page(values: Values, depths: Sequence[int], topics: int) -> str:
    """The tables of every measure, in Markdown.

    Args:
        values: of every system, in the order of the table.
        depths: what the columns behind the first are re-ranked to.
        topics: their number.
    """
    head = ["first stage", *(f"top {depth} re-ranked" for depth in depths)]
    names, blocks = list(values), []
    for measure in MEASURES:
        rows = {
            name: [f"{column.mean():.4f}" for column in values[name][measure]]
            for name in names
        }
        blocks.append(_table(measure, head, rows))
        pairs = [(name, names[0]) for name in names[1:]]
        blocks.append(
            _gains(f"{measure}, more than {names[0]}", head, values, measure, pairs)
        )
        pairs = list(zip(names[2:], names[1:], strict=False))
        if pairs:
            title = f"{measure}, more than the system before"
            blocks.append(_gains(title, head, values, measure, pairs))
    blocks.append(
        f"{topics} topics. In brackets: the share of the first stage's gain that is left "
        "(none where the first stage gained nothing), and p of a paired t-test, "
        "Holm-corrected for the comparisons of its table."
    )
    return "\n\n".join(blocks)


def _gains(
    title: str,
    head: Sequence[str],
    values: Values,
    measure: str,
    pairs: Sequence[tuple[str, str]],
) -> str:
    """A table of what systems have more than others."""
    columns = [
        list(zip(values[ours][measure], values[theirs][measure], strict=True))
        for ours, theirs in pairs
    ]
    tested = [significance.t_test(*both) for row in columns for both in row]
    corrected = iter(significance.holm(tested))
    rows = {}
    for (name, other), row in zip(pairs, columns, strict=True):
        gains = [float((ours - theirs).mean()) for ours, theirs in row]
        cells = []
        for place, gain in enumerate(gains):
            left = f"{gain / gains[0]:.0%}, " if place and gains[0] > 0 else ""
            cells.append(f"{gain:+.4f} ({left}{chance(next(corrected))})")
        rows[f"{name} − {other}"] = cells
    return _table(title, head, rows)


def _table(title: str, head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = [[title, *head], ["---"] * (1 + len(head))]
    lines += [[name, *cells] for name, cells in rows.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Measure a cascade from the command line."""
    parser = cli.parser("cascade.py", __doc__)
    add_model(parser)
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        required=True,
        help="TREC runs, the one to gain over first; their names up to the first dot are "
        "the systems'",
    )
    parser.add_argument("--topics", required=True, help="TSV, TREC or JSON")
    parser.add_argument("--qrels", required=True, help="TREC's or BEIR's")
    parser.add_argument("--corpus", required=True, help="JSONL, TSV or a folder")
    parser.add_argument(
        "--depth", type=int, nargs="+", default=[10, 50, 100], help="default 10 50 100"
    )
    parser.add_argument(
        "--sample", type=int, help="so many of the judged topics, drawn with seed 42"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    cascade(parser.parse_args())


if __name__ == "__main__":
    cli.run(main)
