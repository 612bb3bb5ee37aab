"""Runs scored with pytrec_eval, one below the other.

python -m dense_hn.evaluate --qrels qrels.txt runs/bm25.txt runs/star.txt …
"""

import argparse
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import ttest_rel

from dense_hn import DenseHNError, cli, trec

log = logging.getLogger("dense_hn")

MEASURES = ("RR@10", "nDCG@10", "R@100", "R@1000")


def parse(measure: str) -> tuple[str, int]:
    """``RR@10`` to ``("RR", 10)``.

    Raises:
        DenseHNError: an unknown measure.
    """
    match = re.fullmatch(r"(RR|nDCG|R)@([1-9]\d*)", measure)
    if match is None:
        raise DenseHNError(f"unknown measure {measure!r}; use RR@k, nDCG@k or R@k")
    return match[1], int(match[2])


def per_query(
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Mapping[str, float]],
    measure: str,
    level: int = 1,
) -> dict[str, float]:
    """One value for every judged topic; a topic that the run lacks scores 0.

    As ``trec_eval -c``: over all judged topics, hits ordered by score. Reciprocal rank
    has no cut in trec_eval, so the run is cut first.

    Args:
        qrels: judgements.
        run: docid to score, by topic.
        measure: RR@k, nDCG@k or R@k.
        level: judgements from it on are relevant to RR and R (``trec_eval -l``); nDCG
            takes the grades as they are.

    Raises:
        DenseHNError: an unknown measure.
    """
    import pytrec_eval

    name, cut = parse(measure)
    theirs = {"RR": "recip_rank", "nDCG": f"ndcg_cut_{cut}", "R": f"recall_{cut}"}[name]
    if name == "RR":
        run = {q: {d: run[q][d] for d in trec.ranked(run[q])[:cut]} for q in run}
    evaluator = pytrec_eval.RelevanceEvaluator(
        qrels, {re.sub(r"_(\d+)$", r".\1", theirs)}, relevance_level=level
    )
    scored = evaluator.evaluate({q: run[q] for q in qrels if q in run})
    return {q: scored[q][theirs] if q in scored else 0.0 for q in qrels}


def compare(
    qrels: Mapping[str, Mapping[str, int]],
    runs: Mapping[str, Mapping[str, Mapping[str, float]]],
    measures: Sequence[str] = MEASURES,
    level: int = 1,
) -> list[dict]:
    """Mean of every measure for every run, against the run before it.

    Args:
        qrels: judgements.
        runs: name to run, in the order of the table.
        measures: names as in :func:`per_query`.
        level: as there.

    Raises:
        DenseHNError: an unknown measure; a run without any judged topic.

    Returns:
        A row a run: ``name``, ``topics`` (judged), ``missing`` (of them not in the
        run), and for each measure ``{"mean", "difference", "p"}``: difference to the
        row above and its two-sided paired t-test, None in the first row.
    """
    rows: list[dict] = []
    above: dict[str, np.ndarray] = {}
    for name, run in runs.items():
        missing = sum(qid not in run for qid in qrels)
        if missing == len(qrels):
            raise DenseHNError(
                f"{name}: none of the {len(qrels)} judged topics is in the run; name "
                "the run and the qrels of the same topics"
            )
        if missing:
            log.warning("%s: %d judged topics are not in the run", name, missing)
        row = {"name": name, "topics": len(qrels), "missing": missing}
        for measure in measures:
            values = np.array(list(per_query(qrels, run, measure, level).values()))
            row[measure] = {"mean": float(values.mean()), "difference": None, "p": None}
            if measure in above:
                row[measure]["difference"] = float((values - above[measure]).mean())
                row[measure]["p"] = paired_p(values, above[measure])
            above[measure] = values
        rows.append(row)
    return rows


def paired_p(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Two-sided p-value of the paired t-test; 1 where no topic differs."""
    if len(ours) < 2 or np.array_equal(ours, theirs):
        return 1.0
    return float(ttest_rel(ours, theirs).pvalue)


def table(rows: Sequence[Mapping]) -> str:
    """The rows of :func:`compare` as text: mean, difference to the row above, p."""
    measures = [key for key in rows[0] if isinstance(rows[0][key], dict)]
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'':{width}}" + "".join(f"  {m:<24}" for m in measures).rstrip()]
    for row in rows:
        cells = [_cell(**row[measure]) for measure in measures]
        line = f"{row['name']:{width}}" + "".join(f"  {cell:<24}" for cell in cells)
        lines.append(line.rstrip())
    lines.append(
        f"{rows[0]['topics']} topics. In brackets: difference to the row above, and p "
        "of a paired t-test."
    )
    return "\n".join(lines)


def _cell(mean: float, difference: float | None, p: float | None) -> str:
    if difference is None:
        return f"{mean:.4f}"
    chance = "p<.001" if p < 0.001 else f"p={p:.3f}".replace("0.", ".")
    return f"{mean:.4f} ({difference:+.4f} {chance})"


def main() -> None:
    """Score runs from the command line."""
    parser = argparse.ArgumentParser(
        prog="dense_hn.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--qrels", required=True, help="TREC qrels")
    parser.add_argument("--measures", nargs="+", default=MEASURES, help="RR@10 …")
    parser.add_argument(
        "--relevance_level",
        type=int,
        default=1,
        help="judgements from it on are relevant to RR and R (2 for TREC DL passages)",
    )
    parser.add_argument("runs", nargs="+", help="TREC runs, each compared to the last")
    args = parser.parse_args()
    qrels = trec.read_qrels(args.qrels)
    stems = [Path(path.removesuffix(".gz")).stem for path in args.runs]
    names = stems if len(set(stems)) == len(stems) else args.runs
    runs = {
        name: trec.read_run(path) for name, path in zip(names, args.runs, strict=True)
    }
    print(table(compare(qrels, runs, args.measures, args.relevance_level)))


if __name__ == "__main__":
    cli.run(main)
