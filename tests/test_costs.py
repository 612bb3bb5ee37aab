"""The cost ledger: by a clock that we set, and in what every stage writes."""

import json

import pytest
import torch

from dense_hn import costs, mine
from dense_hn.encode import COSTS, encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.train import arguments, commands
from dense_hn.train.trainer import costs_of


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when they are told to."""
    time = [100.0]
    monkeypatch.setattr(costs.time, "perf_counter", lambda: time[0])

    def passes(seconds):
        time[0] += seconds

    return passes


def test_time_counts_once_in_the_innermost_part(clock, monkeypatch):
    monkeypatch.setattr(costs, "MARKS", 3)
    with costs.Costs() as outer:
        clock(1)
        with costs.part("evaluate"):
            clock(2)
            with costs.Costs() as inner:
                with costs.part("encode"):
                    clock(4)
                clock(8)
            with costs.part("search"):
                clock(16)
        for _ in range(5):
            with costs.part("encode"):
                clock(0.2)
            costs.step()
    facts = outer.facts()
    assert facts["seconds"] == 32
    assert (facts["steps"], facts["seconds_per_step"]) == (5, 6.4)
    shares = {"other": 1 / 32, "evaluate": 10 / 32, "encode": 5 / 32, "search": 0.5}
    assert facts["shares"] == pytest.approx(shares, abs=6e-4)
    facts = inner.facts()
    assert facts["seconds"] == 12
    assert facts["shares"] == pytest.approx(
        {"encode": 4 / 12, "other": 8 / 12}, abs=5e-4
    )
    assert "steps" not in facts
    assert facts["peak_memory_gib"] > 0.05


def test_what_steps_took_lately(clock):
    """Two steps, and then four; padding is of the tokens since, too."""
    with costs.Costs() as spent:
        told = []
        for steps in (2, 4):
            for _ in range(steps):
                with costs.part("encode"):
                    clock(3 * steps)
                costs.count(torch.tensor([[1] * steps + [0] * (4 - steps)]))
                clock(1)
                costs.step()
            told.append(spent.lately())
    assert told == [
        {"seconds/encode": 6, "seconds/other": 1, "padding_share": 0.5},
        {"seconds/encode": 12, "seconds/other": 1, "padding_share": 0},
    ]


def test_a_part_ends_where_something_fails(clock):
    with costs.Costs() as spent:
        with pytest.raises(ZeroDivisionError), costs.part("encode"):
            clock(1)
            raise ZeroDivisionError
        clock(3)
    assert spent.facts()["shares"] == {"encode": 0.25, "other": 0.75}


def test_padding_is_what_the_mask_leaves_out():
    with costs.Costs() as spent:
        costs.count(torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]))
        costs.count(torch.tensor([[1, 1]]))
    assert spent.facts()["padding_share"] == 0.3
    costs.count(torch.ones(1, 1))
    assert spent.facts()["padding_share"] == 0.3


def test_in_words():
    facts = {"seconds": 1234.5, "steps": 10, "seconds_per_step": 123.45}
    facts |= {"shares": {"data": 0.004, "encode": 0.7, "search": 0.296}}
    facts |= {"padding_share": 0.05, "peak_memory_gib": 1.26}
    assert costs.in_words(facts) == (
        "1,234.5 s, 10 steps of 123 s: encode 70%, search 30%, 5% of tokens padding; "
        "peak memory 1.3 GiB"
    )


def test_every_stage_says_what_it_took(
    bert, corpus, topics, qrels, run, files, tmp_path
):
    """Encoding, mining, STAR and ADORE, with the parts that each has."""
    encoder = DenseEncoder.load(str(bert))
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    facts = json.loads((tmp_path / "vectors" / COSTS).read_text())
    assert {"tokenise", "encode", "write"} <= facts["shares"].keys()
    assert facts["passages_per_second"] > 0
    # So few short passages are one slice.
    lengths = [len(ids) for ids in encoder.tokenize(list(corpus.values()), "passage")]
    expected = 1 - sum(lengths) / (len(lengths) * max(lengths))
    assert facts["padding_share"] == pytest.approx(expected, abs=5e-4)

    output = tmp_path / "run.txt"
    mine.mine(encoder, vectors, files["topics"], 5, output, "t")
    facts = json.loads((tmp_path / "run.txt.json").read_text())["costs"]
    assert {"encode", "search"} <= facts["shares"].keys()

    common = {"encoder": bert, "topics": files["topics"], "qrels": files["qrels"]}
    common |= {"max_steps": 3, "per_device_train_batch_size": 4, "use_cpu": "true"}
    for stage, more in (
        ("star", {"corpus": files["corpus"], "negatives": files["run"]}),
        ("adore", {"vectors": tmp_path / "vectors"}),
    ):
        out = tmp_path / stage
        argv = common | more | {"output_dir": out}
        commands.train(stage, arguments.argv_of(argv))
        facts = json.loads(costs_of(out).read_text())
        parts = {"data", "encode", "loss", "backward", "update"}
        parts |= {"search"} if stage == "adore" else set()
        assert parts <= facts["shares"].keys()
        assert facts["steps"] == 3
        assert sum(facts["shares"].values()) == pytest.approx(1, abs=0.01)
        assert facts["seconds_per_step"] == pytest.approx(
            facts["seconds"] / 3, rel=1e-2
        )
        assert 0 <= facts["padding_share"] < 0.5
