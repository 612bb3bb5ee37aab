"""Diagnostics against counts by hand, slow loops, and faiss."""

import csv
import json

import faiss
import numpy as np
import pytest
import torch

from dense_hn import DenseHNError, cli, trec
from dense_hn.diagnose import __main__ as command
from dense_hn.diagnose import errors
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.mine import retrieve
from dense_hn.vectors import Vectors


def test_a_planted_corpus():
    """Scores of the one query are 9, 8, … 0; rows 2 and 5 are relevant, 4 is 5's copy."""
    vectors = torch.tensor([[9.0], [8], [7], [6], [4], [4], [3], [2], [1], [0]])
    listed, relevant = [[2, 5, 0, 9]], [[2, 5]]
    # Above row 5 are 0, 1, 3: not 2, which is relevant, nor its copy, which is level.
    assert errors.above(torch.ones(1, 1), vectors, listed, relevant) == [[2, 3, 0, 7]]


@pytest.mark.parametrize(("chunk", "together"), [(7, 2), (1000, 100), (64, 3)])
def test_counts_are_those_of_a_slow_loop(chunk, together, monkeypatch):
    """Copies among the passages, and queries with many listed ones, one, or none."""
    monkeypatch.setattr(errors, "CHUNK", chunk)
    monkeypatch.setattr(errors, "QUERIES", together)
    made = torch.Generator().manual_seed(1)
    vectors = torch.randn(150, 8, generator=made)
    vectors[40:60] = vectors[:20]
    queries = torch.randn(9, 8, generator=made)
    rng = np.random.default_rng(2)
    numbers = [0, 1, 30, 2, 5, 0, 1, 3, 9]
    listed = [rng.choice(150, n, replace=False).tolist() for n in numbers]
    left_out = [rng.choice(150, n, replace=False).tolist() for n in numbers[::-1]]
    found = errors.above(queries, vectors, listed, left_out)
    for query, rows, out, counts in zip(queries, listed, left_out, found, strict=True):
        scores = [
            sum(a * b for a, b in zip(query.tolist(), v)) for v in vectors.tolist()
        ]
        scores = np.array(scores, dtype=np.float32).tolist()
        others = [score for n, score in enumerate(scores) if n not in out]
        assert counts == [sum(score > scores[row] for score in others) for row in rows]


def test_ranks_are_those_of_faiss():
    made = torch.Generator().manual_seed(3)
    vectors, queries = (torch.randn(n, 16, generator=made) for n in (2000, 5))
    index = faiss.IndexFlatIP(16)
    index.add(vectors.numpy())
    order = index.search(queries.numpy(), 2000)[1]
    listed = [row[[0, 3, 500, 1999]].tolist() for row in order]
    counted = errors.above(queries, vectors, listed, [[]] * 5)
    assert counted == [[0, 3, 500, 1999]] * 5


def test_what_is_not_finite_is_refused():
    vectors = torch.zeros(3, 2)
    vectors[1, 1] = torch.nan
    with pytest.raises(DenseHNError, match="of passages are not finite"):
        errors.above(torch.zeros(1, 2), vectors, [[0]], [[]])


def test_the_part_of_the_worst():
    """Ten queries, errors 0 to 9: 45 in all."""
    counts = [*range(10)]
    assert errors.carried_by(counts, 0.1) == 9 / 45
    assert errors.carried_by(counts, 0.11) == (9 + 8) / 45
    assert errors.carried_by(counts, 1) == 1
    assert errors.carried_by([0, 0], 0.5) == 0


def test_figures_by_hand():
    """Pairs with T 0, 3, 12 and 985; the third query has two of them."""
    of = [{"a": 0}, {"b": 3}, {"c": 12, "d": 985}]
    assert command.summary(of) == {
        "pairs": 4,
        "mean": 250,
        "median": 7.5,
        "99%": 985,
        "most": 985,
        "top-10": 23 / 4,
        "top-100": 115 / 4,
        "top-200": 215 / 4,
        "worst 0.2%": 997 / 1000,
        "worst 1.0%": 997 / 1000,
        "worst 10.0%": 997 / 1000,
    }
    # Of the first ten, none but ranks 1 and 10; all twelve are below 100.
    ranks = [[11, 1, 10, *[50] * 9]]
    found = command.drift(ranks)
    assert (found["negatives"], found["median rank"]) == (12, 50)
    assert found["in top 10"] == 2 / 10
    assert found["in top 100"] == found["in top 200"] == 1


@pytest.fixture
def made(files, bert, corpus, tmp_path):
    """The arguments for two systems, the second of them the first with other weights."""
    one = DenseEncoder.load(str(bert))
    one.save(tmp_path / "one")
    with torch.no_grad():
        for weight in one.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    one.save(tmp_path / "two")
    argv = ["--topics", files["topics"], "--qrels", files["qrels"]]
    for name in ("one", "two"):
        encoder = DenseEncoder.load(str(tmp_path / name))
        encode_corpus(encoder, corpus, tmp_path / f"{name}.vectors")
        argv += ["--system", name, tmp_path / name, tmp_path / f"{name}.vectors"]
    return [*argv, "--output", tmp_path / "diagnosis"]


def diagnosed(monkeypatch, argv) -> dict:
    monkeypatch.setattr("sys.argv", ["diagnose", *map(str, argv)])
    command.main()
    return json.loads((argv[argv.index("--output") + 1] / command.REPORT).read_text())


def test_the_command(made, files, tmp_path, topics, qrels, monkeypatch, capsys):
    """T of all pairs against the search's own run of the whole corpus; same bytes twice."""
    argv = [*made, "--negatives", files["run"], "--depth", "5"]
    report = diagnosed(monkeypatch, argv)
    folder = tmp_path / "diagnosis"
    printed = capsys.readouterr().out
    assert printed == (folder / "table.txt").read_text()
    drawn = {"errors.png", "errors.svg", "negatives.png", "negatives.svg"}
    written = {command.REPORT, command.PAIRS, command.TABLE}
    assert {path.name for path in folder.iterdir()} == drawn | written
    with (folder / command.PAIRS).open() as file:
        pairs = list(csv.DictReader(file))
    assert len(pairs) == 2 * 25
    for name in ("one", "two"):
        encoder = DenseEncoder.load(str(tmp_path / name))
        vectors = Vectors.load(tmp_path / f"{name}.vectors")
        found = dict(retrieve(encoder, vectors, topics, 48))
        for row in pairs:
            if row["system"] == name:
                hits = found[row["qid"]]
                others = [hits[d] for d in hits if not qrels[row["qid"]].get(d)]
                above = sum(score > hits[row["docid"]] for score in others)
                assert int(row["errors"]) == above
        of = [int(row["errors"]) for row in pairs if row["system"] == name]
        assert report["errors"][name]["mean"] == np.mean(of)
        assert report["errors"][name]["top-10"] == np.mean(np.minimum(of, 10))
    # Relevant ones among the first five hits of a run are no negatives.
    assert report["negatives"]["one"]["negatives"] == 24 * 5
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    diagnosed(monkeypatch, argv)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_that_is_its_negatives_own_has_them_on_top(
    made, tmp_path, topics, monkeypatch
):
    """The other one has not all of them there."""
    vectors = Vectors.load(tmp_path / "one.vectors")
    encoder = DenseEncoder.load(str(tmp_path / "one"))
    trec.write_run(
        tmp_path / "own", dict(retrieve(encoder, vectors, topics, 20)), "own"
    )
    report = diagnosed(monkeypatch, [*made, "--negatives", tmp_path / "own"])
    assert report["negatives"]["one"]["in top 10"] == 1
    assert report["negatives"]["two"]["in top 10"] < 0.9


def test_curves_of_trainings(made, tmp_path, monkeypatch, capsys):
    """Two trainings, one of which was not evaluated at its start, and one not at all."""
    (tmp_path / "a").write_text(
        '{"eval_RR@10": 0.25, "eval_train_RR@10": 0.5, "step": 0}\n'
        '{"eval_RR@10": 0.5, "eval_train_RR@10": 1.0, "step": 10}\n'
    )
    (tmp_path / "b").write_text(
        '{"loss": 1, "step": 5}\n{"eval_RR@10": 0, "step": 10}\n'
    )
    (tmp_path / "c").write_text('{"loss": 1, "step": 5}\n')
    argv = list(made)
    for name in "abc":
        argv += ["--log", name, tmp_path / name]
    report = diagnosed(monkeypatch, argv)
    assert report["curves"] == {
        "a": {"RR@10": {"0": 0.25, "10": 0.5}, "train_RR@10": {"0": 0.5, "10": 1.0}},
        "b": {"RR@10": {"10": 0}},
    }
    assert "train_RR@10       0       10" in capsys.readouterr().out
    folder = tmp_path / "diagnosis"
    with (folder / command.CURVES).open() as file:
        rows = list(csv.reader(file))
    assert rows[1:3] == [["a", "RR@10", "0", "0.25"], ["a", "RR@10", "10", "0.5"]]
    assert len(rows) == 1 + 4 + 1
    assert (folder / "curves.png").is_file()
    assert (folder / "curves.svg").read_text().count("train_RR@10")
    (tmp_path / "a").write_text('{"eval_RR@10": 0.25}\n')
    with pytest.raises(DenseHNError, match="a:1: has no step"):
        diagnosed(monkeypatch, argv)


def test_a_sample(made, tmp_path, monkeypatch):
    """Some topics, the same for the same seed."""
    found = [
        diagnosed(monkeypatch, [*made, "--sample", "5", "--seed", seed])
        for seed in ("1", "1", "2")
    ]
    assert found[0] == found[1] != found[2]
    assert found[0]["errors"]["one"]["pairs"] in (5, 6)
    assert "negatives" not in found[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--negatives", "strange"], "is not in"),
        (["--system", "one", "x", "one.vectors"], "each needs a name of its own"),
        (["--system", "three", "one", "two.vectors"], "made by another encoder"),
        (["--output", "full"], "full"),
    ],
)
def test_what_does_not_fit_is_refused(
    change, message, made, tmp_path, monkeypatch, capsys
):
    trec.write_run(tmp_path / "strange", {"q0": {"nowhere": 1.0}}, "x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["diagnose", *map(str, made), *change])
    with pytest.raises(SystemExit) as stopped:
        cli.run(command.main)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
