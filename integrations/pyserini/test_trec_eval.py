"""The real trec_eval, as `pyserini.eval.trec_eval` runs it, on what `evaluate` scores."""

import csv
import json
import subprocess
import sys

import pytest

from dense_hn import trec
from dense_hn.evaluate import __main__ as command

# Ours to trec_eval's -m, by the rest of its command line.
MEASURES = {
    (): {
        "RR": "recip_rank",
        "nDCG": "ndcg",
        "nDCG@10": "ndcg_cut.10",
        "R@5": "recall.5",
        "P@5": "P.5",
        "MAP": "map",
        "MAP@10": "map_cut.10",
        "Success@1": "success.1",
    },
    ("-l", "2"): {
        "RR(rel=2)": "recip_rank",
        "R(rel=2)@1000": "recall.1000",
        "P(rel=2)@5": "P.5",
        "AP(rel=2)": "map",
        "AP(rel=2)@10": "map_cut.10",
        "Success(rel=2)@5": "success.5",
    },
    # trec_eval's only way to cut reciprocal rank: to cut the run.
    ("-M", "3"): {"RR@3": "recip_rank"},
}
NAMES = [name for names in MEASURES.values() for name in names]


def trec_eval(qrels: str, run: str) -> dict[tuple[str, str], float]:
    """Measure (ours) and topic, ``all`` among them, to trec_eval's value."""
    values = {}
    for options, names in MEASURES.items():
        asked = [word for name in names.values() for word in ("-m", name)]
        line = ["dense_hn.pyserini", "eval.trec_eval", "-c", "-q", *options, *asked]
        line = [sys.executable, "-m", *line, qrels, run]
        done = subprocess.run(line, check=True, capture_output=True, text=True)
        ours = {theirs.replace(".", "_"): name for name, theirs in names.items()}
        for row in done.stdout.splitlines():
            name, qid, value = row.split()
            values[ours[name], qid] = float(value)
    return values


def test_means_and_topics_are_trec_evals(contest, tmp_path, monkeypatch, capsys):
    qrels, runs = contest
    files = [str(tmp_path / "qrels"), str(tmp_path / "run")]
    trec.write_qrels(files[0], qrels)
    # In no order, and with ties, which write_run would take away.
    lines = [
        f"{qid} Q0 {docid} 0 {score} t\n"
        for qid, hits in runs["better"].items()
        for docid, score in hits.items()
    ]
    (tmp_path / "run").write_text("".join(lines))

    argv = ["evaluate", "--qrels", *files, "--measures", *NAMES, "--format", "json"]
    monkeypatch.setattr(sys, "argv", [*argv, "--per_query", str(tmp_path / "q.tsv")])
    command.main()
    cells = json.loads(capsys.readouterr().out)["rows"][0]["cells"]
    ours = {(name, "all"): cell["mean"] for name, cell in cells.items()}
    with open(tmp_path / "q.tsv", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            ours |= {(name, row["qid"]): float(row[name]) for name in NAMES}

    theirs = trec_eval(*files)
    assert {key: ours[key] for key in theirs} == pytest.approx(theirs, abs=5.1e-5)
    # What the run lacks it does not print, and counts with 0.
    lacking = {(name, qid) for name in NAMES for qid in ("q4", "q5")}
    assert ours.keys() - theirs.keys() == lacking
    assert all(ours[key] == 0 for key in lacking)
    assert all(0 < theirs[name, "all"] < 1 for name in NAMES)
