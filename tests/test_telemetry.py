"""What trainings tell of themselves, against loops over the run of the same encoder."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dense_hn import trec
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.mine import retrieve
from dense_hn.train import arguments, commands
from dense_hn.train.joint import JointTrainer
from dense_hn.train.telemetry import LastHits, Telemetry
from dense_hn.train.trainer import log_of
from dense_hn.vectors import Vectors


def test_means_are_of_what_came_since():
    told = Telemetry()
    told.add("rank", torch.tensor([1, 2]))
    told.add("rank", torch.tensor([6]))
    told.add("first", torch.tensor([True, False, False, True]))
    told.add("again", torch.tensor([]))
    assert told.means() == {"rank": 3, "first": 0.5}
    told.add("rank", torch.tensor([8]))
    assert told.means() == {"rank": 8}
    assert told.means() == {}


def test_hits_as_before():
    """Of ten; fewer where fewer are retrieved, and nothing of a query that is new."""
    last = LastHits(3, torch.device("cpu"))
    hits = torch.arange(24).view(2, 12)
    assert last.again(torch.tensor([0, 2]), hits).tolist() == []
    # Row 0 has 0 to 11, of which 0 to 9 are kept; 7 of 3 to 12 are among these.
    found = last.again(torch.tensor([1, 0]), torch.stack([hits[1], hits[0] + 3]))
    assert found.tolist() == [0.7]
    assert last.again(torch.tensor([0, 1]), hits[:, :4] + 10).tolist() == [0.75, 0]


@pytest.fixture
def lines(files, bert, corpus, tmp_path):
    """The log of a training of two epochs of all 24 topics at once, that learns nothing."""
    encode_corpus(DenseEncoder.load(str(bert)), corpus, tmp_path / "vectors")

    def trained(stage, **settings) -> list[dict]:
        argv = {"encoder": bert, "topics": files["topics"], "qrels": files["qrels"]}
        argv |= {"output_dir": tmp_path / "out", "max_steps": 2, "logging_steps": 1}
        argv |= {"per_device_train_batch_size": 24, "use_cpu": True}
        argv |= {"learning_rate": 0.0, **settings}
        commands.train(stage, arguments.argv_of(argv))
        log = log_of(tmp_path / "out").read_text().splitlines()
        return [line for line in map(json.loads, log) if "loss" in line]

    return trained


def test_adore_tells_where_positives_stand(lines, bert, tmp_path, topics, qrels):
    vectors = Vectors.load(tmp_path / "vectors")
    found = dict(retrieve(DenseEncoder.load(str(bert)), vectors, topics, 48))
    ranks = []
    for qid, hits in found.items():
        order = trec.ranked(hits)
        ranks.append(min(order.index(d) + 1 for d in trec.positives(qrels, qid)))
    ranks = np.array(ranks)
    assert (ranks > 10).any() and (ranks <= 10).any()
    first, second = lines("adore", vectors=tmp_path / "vectors", adore_hits=10)
    assert first["positive_first"] == pytest.approx((ranks == 1).mean(), abs=1e-4)
    assert first["not_retrieved"] == pytest.approx((ranks > 10).mean(), abs=1e-4)
    # Those that are not retrieved stand behind: at 11, as no query has two of them.
    expected = np.minimum(ranks, 11).mean()
    assert first["rank_of_positive"] == pytest.approx(expected, abs=1e-4)
    assert "hits_as_before" not in first
    assert second["hits_as_before"] == 1
    assert {"seconds/encode", "seconds/search", "padding_share", "grad_norm"} <= set(
        first
    )
    assert not any("suspected" in line for line in (first, second))


def test_star_tells_what_stands_above(lines, files):
    told = lines("star", corpus=files["corpus"], negatives=files["run"], dropout=0)
    for line in told:
        assert 0 <= line["positive_first"] <= 1 and 0 <= line["hard_above"] <= 1
        # A positive with a hard negative above it is not first.
        assert line["hard_above"] <= 1 - line["positive_first"]
    assert told[0]["hard_above"] > 0
    # Without what the filter suspects, nothing stands above.
    filtered = lines("warmup", corpus=files["corpus"], drop_absolute_margin=0)
    assert filtered[0]["suspected"] > 1
    assert filtered[0]["positive_first"] == 1
    assert "hard_above" not in filtered[0]


def test_a_scorer_of_one_score_has_nothing_first():
    """Of four queries with a negative each; the last has none."""
    told = Telemetry()
    trainer = SimpleNamespace(telemetry=told)
    scores, negatives = torch.ones(4, 2), torch.tensor([[False, True]] * 4)
    negatives[3] = False
    JointTrainer._tell(trainer, scores[:, 0], scores, negatives, negatives)
    assert told.means() == {"positive_first": 0.25, "hard_above": 0}


def test_tensorboard_is_told_the_same(lines, tmp_path):
    """And it stays when the training is over; one that begins anew replaces it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    encoded = {"vectors": tmp_path / "vectors", "report_to": "tensorboard"}
    for _ in range(2):
        first, second = lines("adore", **encoded)
    events = EventAccumulator(str(tmp_path / "out.tensorboard"))
    events.Reload()
    for name in ("positive_first", "rank_of_positive", "loss", "seconds/search"):
        told = [(event.step, event.value) for event in events.Scalars(f"train/{name}")]
        logged = [
            (n, pytest.approx(line[name])) for n, line in ((1, first), (2, second))
        ]
        assert told == logged
    assert len([*(tmp_path / "out.tensorboard").iterdir()]) == 1
