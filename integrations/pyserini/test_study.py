"""The study at a small size, and its table against one worked out by hand."""

import gzip
import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import holm_by_hand
import numpy as np
import pytest
import results
import study
from replay import run_here
from safetensors.numpy import load_file
from scipy.stats import ttest_rel

from dense_hn import trec

MADE = study.Budget(
    length=32,
    cut=32,
    batch=4,
    warmup=2,
    steps=2,
    adore=2,
    alternative=2,
    judged_only=True,
)

# Of three topics.
RELEVANT = ("one", "one", "other")


def write_beir(folder, corpus, topics, qrels):
    """A BEIR folder, two thirds of the topics for training, one third for test.

    The last topic of test asks for what the first of train asks for, too.
    """
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", corpus), ("queries", topics)):
        lines = [json.dumps({"_id": i, "text": text}) for i, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    qids = list(topics)
    qrels = qrels | {qids[-1]: qrels[qids[-1]] | qrels[qids[0]]}
    for split, part in (("train", qids[:16]), ("test", qids[16:])):
        rows = [f"{q}\t{d}\t{g}\n" for q in part for d, g in qrels[q].items()]
        head = "query-id\tcorpus-id\tscore\n"
        (folder / "qrels" / f"{split}.tsv").write_text(head + "".join(rows))


def tables_of(monkeypatch, capsys, root, *flags):
    """What results.py prints: rows by first cell, of all collections and of each one."""
    monkeypatch.setattr(sys, "argv", ["results.py", "--root", str(root), *flags])
    capsys.readouterr()
    results.main()
    tables = []
    for part in capsys.readouterr().out.split("\n### "):
        lines = [line for line in part.splitlines() if line.startswith("| ")]
        cells = [[one.strip() for one in line[1:-1].split("|")] for line in lines]
        tables.append({row[0]: row[1:] for row in cells[2:]})
    return tables


@pytest.mark.usefixtures("pyserini_here")
def test_a_small_study(tmp_path, monkeypatch, capsys, corpus, topics, qrels):
    """What the table says of a system is what its recipe's table says."""
    write_beir(tmp_path / "made", corpus, topics, qrels)
    monkeypatch.setattr(study, "BUDGETS", {"made": MADE})
    argv = ["study.py", "--collections", str(tmp_path), "--seeds", "1"]
    argv += ["--output", str(tmp_path / "out"), "--stages", results.OURS]
    # To what it was trained on, so that the same is found.
    argv += ["--transfer", "made"]
    monkeypatch.setattr(sys, "argv", argv)
    study.main()
    work = tmp_path / "out/made/1"
    ledger = json.loads((work / "work/study/stages.json").read_text())
    _, rows, transferred = tables_of(monkeypatch, capsys, tmp_path / "out")
    known = tmp_path / "out" / results.QRELS / "made.known.txt"
    assert known.read_text().split() == [list(topics)[-1]]
    systems = ["BM25", "untrained", "warmup", results.STATIC, results.OURS]
    assert rows.keys() == {*systems, results.ALTERNATIVE}
    assert {name: row[1:4] for name, row in transferred.items()} == {
        name: row[1:4] for name, row in rows.items() if name != "warmup"
    }
    table = work / "runs/study/table.test.json"
    found = {row["name"]: row for row in json.loads(table.read_text())["rows"]}
    for system in systems:
        mean = found[system]["cells"]["nDCG@10"]["mean"]
        assert rows[system][1] == f"{mean:.4f}"
    assert "max_steps: 2" in (work / "study.yaml").read_text()
    costs = json.loads(
        (tmp_path / "out" / results.RUNS / "made/costs.1.json").read_text()
    )
    needed = ("collection", "bm25.index", "bm25.test")
    assert costs["bm25"]["seconds"] == pytest.approx(
        sum(ledger[stage]["seconds"] for stage in needed), abs=0.06
    )
    assert costs["warmup"]["seconds"] > ledger["warmup"]["seconds"]
    assert costs[results.ALTERNATIVE]["seconds"] > 0
    monkeypatch.setattr(sys, "argv", [*argv[:-2], "--mixed", "made"])
    study.main()
    mixed, _, _, _ = tables_of(monkeypatch, capsys, tmp_path / "out")
    assert mixed.keys() == {"made", "made-after-made", "made-after-1"}
    weights = [
        load_file(tmp_path / "out" / folder / "model.safetensors")
        for folder in (
            "made/1/work/study/models/base",
            f"made/1/work/study/models/{results.OURS}",
            f"mixed/1/work/made/models/{results.OURS}",
        )
    ]
    for name in weights[0]:
        base, trained, found = (one[name] for one in weights)
        np.testing.assert_allclose(found, (base + trained) / 2, atol=1e-6)


@pytest.mark.usefixtures("pyserini_here")
def test_a_small_study_of_passages(
    tmp_path, monkeypatch, capsys, corpus, topics, qrels
):
    """Trained and searched as passages; what is kept is of documents."""
    write_beir(tmp_path / "made", corpus, topics, qrels)
    name = "made-passages"
    monkeypatch.setattr(study, "BUDGETS", {name: replace(MADE, words=4, overlap=1)})
    argv = ["study.py", "--collections", str(tmp_path), "--seeds", "1"]
    argv += ["--output", str(tmp_path / "out"), "--stages", results.STATIC]
    monkeypatch.setattr(sys, "argv", argv)
    study.main()
    folder = tmp_path / "out" / results.RUNS / name
    for path in folder.glob("*.txt.gz"):
        assert set().union(*trec.read_run(path).values()) <= corpus.keys()
    known = tmp_path / "out" / results.QRELS / f"{name}.known.txt"
    assert known.read_text().split() == [list(topics)[-1]]
    _, rows = tables_of(monkeypatch, capsys, tmp_path / "out")
    table = tmp_path / "out" / name / "1/runs/study/table.test.json"
    for row in json.loads(table.read_text())["rows"]:
        assert rows[row["name"]][1] == f"{row['cells']['nDCG@10']['mean']:.4f}"
    assert rows.keys() == {
        *("BM25", "untrained", "warmup", results.STATIC),
        results.ALTERNATIVE,
    }


@pytest.fixture
def kept(tmp_path):
    """Runs of three topics with one relevant document each, at the ranks that are given.

    The first two ask for the same one.
    """
    ranks = {
        "bm25.txt.gz": [4, 4, 3],
        "base.txt.gz": [3, 4, 3],
        f"{results.ALTERNATIVE}.1.txt.gz": [2, 3, 2],
        f"{results.OURS}.1.txt.gz": [1, 2, 1],
        f"{results.OURS}.2.txt.gz": [1, 1, 1],
    }
    qrels = tmp_path / results.QRELS / "made.txt"
    qrels.parent.mkdir(parents=True)
    trec.write_qrels(qrels, {f"q{n}": {RELEVANT[n]: 1} for n in range(3)})
    for name, places in ranks.items():
        lines = []
        for topic, place in enumerate(places):
            docids = [f"d{n}" for n in range(1, 6)]
            docids[place - 1] = RELEVANT[topic]
            lines += [
                f"q{topic} Q0 {d} {n + 1} {9 - n} x" for n, d in enumerate(docids)
            ]
        path = tmp_path / results.RUNS / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            file.write("\n".join(lines) + "\n")
    for seed in (1, 2):
        costs = {results.OURS: {"seconds": 60 * seed, "peak_memory_gib": 2 * seed - 1}}
        path.with_name(f"costs.{seed}.json").write_text(json.dumps(costs))
    return tmp_path


def test_the_table_by_hand(kept, monkeypatch, capsys):
    """nDCG@10 of one relevant document at rank r is 1 / log2(1 + r)."""
    summary, rows = tables_of(monkeypatch, capsys, kept)
    assert list(rows) == ["BM25", "untrained", results.ALTERNATIVE, results.OURS]

    def gain(*ranks):
        return [1 / math.log2(1 + rank) for rank in ranks]

    one, two = sum(gain(1, 2, 1)) / 3, 1.0
    mean, spread = (one + two) / 2, (two - one) / math.sqrt(2)
    # Two seeds that took one and two minutes, with 1 and 3 GiB.
    first, *_, minutes, memory = rows[results.OURS][1:]
    assert first == f"{mean:.4f} ± {spread:.4f}"
    assert (rows[results.OURS][0], minutes, memory) == ("2", "1.5", "3.0")
    bm25 = f"{sum(gain(4, 4, 3)) / 3:.4f}"
    assert rows["BM25"][1] == bm25
    ours = [1, (1 + gain(2)[0]) / 2, 1]
    p = {
        name: ttest_rel(ours, gain(*ranks)).pvalue
        for name, ranks in (
            ("BM25", (4, 4, 3)),
            ("untrained", (3, 4, 3)),
            (results.ALTERNATIVE, (2, 3, 2)),
        )
    }
    expected = holm_by_hand.cells(p)
    topics, seeds, *cells = summary["made"]
    assert (topics, seeds) == ("3", "2")
    assert [cell.split()[-1] for cell in cells[:3]] == [
        f"({expected[name]})" for name in p
    ]
    assert cells[0].startswith(bm25)
    # No run of STAR was kept, and nothing is compared with itself.
    assert cells[3:] == ["", f"{mean:.4f} ± {spread:.4f}"]


def test_topics_of_one_passage_are_a_group(kept, monkeypatch, capsys):
    """Two groups: one degree of freedom, where t is Cauchy's."""
    monkeypatch.setattr(sys, "argv", ["results.py", "--root", str(kept)])
    results.main()

    def chance(*ranks):
        ours = [1, (1 + 1 / math.log2(3)) / 2, 1]
        theirs = [1 / math.log2(1 + rank) for rank in ranks]
        one, two, three = (a - b for a, b in zip(ours, theirs, strict=True))
        mean = (one + two + three) / 3
        t = 3 * mean / (2 * abs(three - mean))
        return 1 - 2 / math.pi * math.atan(t)

    p = {
        "BM25": chance(4, 4, 3),
        "untrained": chance(3, 4, 3),
        results.ALTERNATIVE: chance(2, 3, 2),
    }
    expected = holm_by_hand.cells(p)[results.ALTERNATIVE].strip("()")
    printed = capsys.readouterr().out
    assert f"Holm-corrected likewise: made {expected}.\n" in printed
    assert "\n3 topics, 2 groups\n" in printed


def test_the_figure(kept, monkeypatch, capsys):
    """A point for each system whose time is known, a line for others."""
    pytest.importorskip("matplotlib")
    tables_of(monkeypatch, capsys, kept, "--figure", str(kept / "made.svg"))
    drawn = (kept / "made.svg").read_text()
    titles = re.findall(r"<!-- (.+?) -->", drawn)
    assert {"made", results.OURS} <= set(titles)
    assert "BM25, untimed" in titles and "BM25" not in titles


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
    assert all(made[name]["judged_only"] for name in trainings)
    other = study.filled("scifact", {}, 7, "dev", ["star-adore"])
    assert not any("judged_only" in other[name] for name in trainings)
    shared = study.filled("fairytaleqa", {}, 7, "dev", ["star-adore"])
    settings = [shared[name].get("topics_per_positive") for name in trainings]
    assert settings == [study.BUDGETS["fairytaleqa"].topics_per_positive] * 2 + [None]


def test_the_pages_say_what_the_kept_runs_say(monkeypatch, capsys):
    """The page has all tables, the README the first."""
    monkeypatch.setattr(sys, "argv", ["results.py"])
    results.main()
    printed = capsys.readouterr().out.strip()
    page = results.ROOT / "integrations/pyserini/study/study.md"
    assert f"\n{printed}\n" in page.read_text()
    summary = printed.partition("\n### ")[0]
    assert f"\n{summary.strip()}\n" in (results.ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "folder", ["fairytaleqa-longer", "fairytaleqa-hybrid", "fairytaleqa-30-words"]
)
def test_the_kept_runs_of_hybrid_search_give_the_printed_table(
    folder, monkeypatch, capsys
):
    blocks = (study.HERE / "study.md").read_text().split("```")
    place = next(n for n, text in enumerate(blocks) if folder in text)
    *_, line = blocks[place].strip().splitlines()
    expanded = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {line}"],
        check=True,
        capture_output=True,
        text=True,
    )
    monkeypatch.chdir(results.ROOT)
    _, _, module, *words = expanded.stdout.splitlines()
    run_here(module, words)
    assert capsys.readouterr().out.strip() == blocks[place + 2].strip()
