"""The study at a small size, and its table against one worked out by hand."""

import gzip
import json
import math
import re
import sys

import pytest
from scipy.stats import ttest_rel
from study import study

from dense_hn import trec

MADE = study.Budget(
    length=32, cut=32, batch=4, warmup=2, steps=2, adore=2, alternative=2
)


def write_beir(folder, corpus, topics, qrels):
    """A BEIR folder, two thirds of the topics for training, one third for test."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", corpus), ("queries", topics)):
        lines = [json.dumps({"_id": i, "text": text}) for i, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    qids = list(topics)
    for split, part in (("train", qids[:16]), ("test", qids[16:])):
        rows = [f"{q}\t{d}\t{g}\n" for q in part for d, g in qrels[q].items()]
        head = "query-id\tcorpus-id\tscore\n"
        (folder / "qrels" / f"{split}.tsv").write_text(head + "".join(rows))


def rows_of(printed):
    """The rows of a printed table, by their first cell."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells if re.fullmatch(r"\d", row[1])}


def test_a_small_study(tmp_path, monkeypatch, capsys, corpus, topics, qrels):
    """What the table says of a system is what its recipe's table says."""
    write_beir(tmp_path / "made", corpus, topics, qrels)
    monkeypatch.setattr(study, "BUDGETS", {"made": MADE})
    # One training is enough here; recipes have tests of their own.
    monkeypatch.setattr(study, "OURS", "warmup")
    argv = ["study.py", "run", "--collections", str(tmp_path)]
    argv += ["--output", str(tmp_path / "out"), "--seeds", "1", "--stages", study.OURS]
    monkeypatch.setattr(sys, "argv", argv)
    study.main()
    again = ["study.py", "table", "--root", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", again)
    capsys.readouterr()
    study.main()
    rows = rows_of(capsys.readouterr().out)
    systems = ["BM25", "untrained", "warmup"]
    assert rows.keys() == {*systems, study.ALTERNATIVE}
    table = tmp_path / "out/made/1/runs/study/table.test.json"
    found = {row["name"]: row for row in json.loads(table.read_text())["rows"]}
    for system in systems:
        mean = found[system]["cells"]["nDCG@10"]["mean"]
        assert rows[system][1] == f"{mean:.4f}"
    recipe = tmp_path / "out/made/1/study.yaml"
    assert "max_steps: 2" in recipe.read_text()
    costs = tmp_path / "out" / study.RUNS / "made/costs.1.json"
    assert json.loads(costs.read_text())[study.ALTERNATIVE]["seconds"] > 0


@pytest.fixture
def kept(tmp_path):
    """Runs of three topics with one relevant document each, at the ranks that are given."""
    ranks = {
        "bm25.txt.gz": [4, 4, 3],
        "base.txt.gz": [3, 4, 3],
        f"{study.ALTERNATIVE}.1.txt.gz": [2, 3, 2],
        f"{study.OURS}.1.txt.gz": [1, 2, 1],
        f"{study.OURS}.2.txt.gz": [1, 1, 1],
    }
    qrels = tmp_path / study.QRELS / "made.txt"
    qrels.parent.mkdir(parents=True)
    trec.write_qrels(qrels, {f"q{n}": {"relevant": 1} for n in range(3)})
    for name, places in ranks.items():
        lines = []
        for topic, place in enumerate(places):
            docids = [f"d{n}" for n in range(1, 6)]
            docids[place - 1] = "relevant"
            lines += [
                f"q{topic} Q0 {d} {n + 1} {9 - n} x" for n, d in enumerate(docids)
            ]
        path = tmp_path / study.RUNS / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            file.write("\n".join(lines) + "\n")
    return tmp_path


def test_the_table_by_hand(kept, monkeypatch, capsys):
    """nDCG@10 of one relevant document at rank r is 1 / log2(1 + r)."""
    monkeypatch.setattr(sys, "argv", ["study.py", "table", "--root", str(kept)])
    study.main()
    rows = rows_of(capsys.readouterr().out)
    assert list(rows) == ["BM25", "untrained", study.ALTERNATIVE, study.OURS]

    def gain(*ranks):
        return [1 / math.log2(1 + rank) for rank in ranks]

    one, two = sum(gain(1, 2, 1)) / 3, 1.0
    mean, spread = (one + two) / 2, (two - one) / math.sqrt(2)
    assert rows[study.OURS][:2] == ["2", f"{mean:.4f} ± {spread:.4f}"]
    assert rows["BM25"][1] == f"{sum(gain(4, 4, 3)) / 3:.4f}"
    ours = [1, (1 + gain(2)[0]) / 2, 1]
    p = {
        name: ttest_rel(ours, gain(*ranks)).pvalue
        for name, ranks in (
            ("BM25", (4, 4, 3)),
            ("untrained", (3, 4, 3)),
            (study.ALTERNATIVE, (2, 3, 2)),
        )
    }
    # Holm: the smallest of three times three, the next times two.
    expected, so_far = {}, 0.0
    for factor, name in zip((3, 2, 1), sorted(p, key=p.get), strict=True):
        so_far = max(so_far, factor * p[name])
        expected[name] = f"{min(so_far, 1):.3f}"
    assert {name: rows[name][-1] for name in p} == expected


def test_a_collection_gets_its_budget():
    """A stage brings along what it starts from, and what it learns from."""
    budget = study.BUDGETS["nl2bash"]
    made = study.filled("nl2bash", {"beir": "x"}, 7, "dev", ["star-adore"])
    trainings = [name for name in made if "method" in made[name]]
    assert trainings == ["warmup", "star", "star-adore"]
    assert made["collection"] == {"beir": "x"}
    assert made["evaluate"]["topics"] == "dev"
    assert made["encoder"]["passage_length"] == budget.length
    steps = [made[name]["max_steps"] for name in trainings]
    assert steps == [budget.warmup, budget.steps, budget.adore]
    assert {made[name]["seed"] for name in trainings} == {7}
    assert made["star"]["passage_length"] == budget.cut
    assert "passage_length" not in made["star-adore"]
    assert len(study.filled("nl2bash", {}, 7, "dev", ())) > 15
