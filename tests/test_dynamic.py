"""Dynamic negatives while both sides learn: against slow loops and what is known."""

import itertools
import json

import pytest
import torch

from dense_hn import DenseHNError, trec
from dense_hn.encode import encode_corpus, encode_in_memory, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.train import arguments, commands
from dense_hn.train.dynamic import DynamicTrainer
from dense_hn.vectors import Vectors

FAST = [
    "--max_steps",
    "6",
    "--per_device_train_batch_size",
    "8",
    "--logging_steps",
    "1",
]
FAST += ["--learning_rate", "1e-3", "--disable_tqdm", "true", "--use_cpu", "true"]


def train(files, bert, output, *flags, **changes) -> list[dict]:
    """A short training of this stage, and its log."""
    argv = {"encoder": bert, "corpus": files["corpus"], "topics": files["topics"]}
    argv |= {"qrels": files["qrels"], "output_dir": output, "dynamic_hits": 10}
    argv = arguments.argv_of(argv | {"slice_passages": 3} | changes)
    commands.train("dynamic", [*argv, *FAST, *flags])
    log = output.with_name(f"{output.name}.log.jsonl").read_text()
    return [json.loads(line) for line in log.splitlines()]


@pytest.fixture
def steps(monkeypatch) -> list[dict]:
    """What each step saw: its items and vectors, and the matrix before and after it."""
    seen, compute = [], DynamicTrainer.compute_loss

    def watch(self, model, inputs, **_):
        before = self._matrix.vectors.clone()
        loss, found = compute(self, model, inputs, return_outputs=True)
        seen.append(
            {
                "model": {k: v.clone() for k, v in model.model.state_dict().items()},
                "items": found["items"],
                "scores": found["scores"].detach(),
                "loss": float(loss.detach()),
                "before": before,
                "after": self._matrix.vectors.clone(),
                "docids": list(self._docids),
            }
        )
        return loss

    monkeypatch.setattr(DynamicTrainer, "compute_loss", watch)
    return seen


def encoder_of(bert, step) -> DenseEncoder:
    """The encoder as it was in a step."""
    encoder = DenseEncoder.load(str(bert))
    encoder.model.load_state_dict(step["model"])
    return encoder.eval()


def test_negatives_are_hits_of_the_step_and_go_back_into_the_matrix(
    bert, files, corpus, qrels, tmp_path, steps
):
    train(files, bert, tmp_path / "out", dynamic_per_query=2)
    assert len(steps) == 6
    fresh = encode_in_memory(DenseEncoder.load(str(bert)), corpus)
    torch.testing.assert_close(steps[0]["before"], fresh.matrix)
    for number, step in enumerate(steps):
        encoder = encoder_of(bert, step)
        docids = step["docids"]
        # The slice that is due, in turn; then hits; then the step's own passages.
        turn = [(3 * number + n) % len(docids) for n in range(3)]
        searched = step["before"].clone()
        searched[turn] = encode_texts(
            encoder, [corpus[docids[row]] for row in turn], "passage"
        )
        shown = set()
        for item in step["items"]:
            ((qid, text),) = item["topics"].items()
            query = encode_texts(encoder, [text], "query")[0]
            best = (searched.double() @ query.double()).argsort(descending=True)[:10]
            hits = {docids[row] for row in best.tolist()} - qrels[qid].keys()
            assert len(item["hard"]) == 2 and set(item["hard"]) <= hits
            shown |= {item["positive"], *item["hard"]}
        rows = [docids.index(docid) for docid in sorted(shown)]
        texts = [corpus[docids[row]] for row in rows]
        expected = searched.clone()
        expected[rows] = encode_texts(encoder, texts, "passage")
        torch.testing.assert_close(step["after"], expected, rtol=1e-4, atol=1e-5)
    for one, other in itertools.pairwise(steps):
        torch.testing.assert_close(one["after"], other["before"])


def test_the_loss_is_of_fresh_vectors_by_a_slow_loop(
    bert, files, corpus, qrels, tmp_path, steps
):
    """infonce, by hand, in float64."""
    train(files, bert, tmp_path / "out", star_loss="infonce")
    for step in steps[:2]:
        encoder, total = encoder_of(bert, step), 0.0
        items = step["items"]
        shown = [item["positive"] for item in items]
        shown += [docid for item in items for docid in item["hard"]]
        texts = [corpus[docid] for docid in shown]
        vectors = encode_texts(encoder, texts, "passage").double()
        for item in items:
            ((qid, text),) = item["topics"].items()
            query = 20 * encode_texts(encoder, [text], "query")[0].double()
            positive = vectors[shown.index(item["positive"])] @ query
            others = [
                vector @ query
                for docid, vector in zip(shown, vectors, strict=True)
                if docid not in qrels[qid]
            ]
            total += torch.stack([positive, *others]).logsumexp(0) - positive
        assert step["loss"] == pytest.approx(float(total / len(items)), rel=1e-4)


def test_gradients_reach_the_passages(bert, files, tmp_path, monkeypatch):
    """Of the encoder's weights, what comes through passages alone is not zero."""
    seen, loss_of = [], DynamicTrainer.loss_of

    def watch(self, queries, passages, inputs):
        loss, scores = loss_of(self, queries, passages, inputs)
        seen.append(torch.autograd.grad(loss, passages, retain_graph=True)[0])
        return loss, scores

    monkeypatch.setattr(DynamicTrainer, "loss_of", watch)
    train(files, bert, tmp_path / "out")
    assert all((one.norm(dim=1) > 0).all() for one in seen)


def test_the_age_of_the_matrix_is_told(bert, files, corpus, tmp_path, steps):
    """48 passages, all of which are looked at: by hand, and 1 where all are fresh."""
    log = train(files, bert, tmp_path / "out", slice_passages=0)
    told = [line["cosine_to_fresh"] for line in log if "cosine_to_fresh" in line]
    assert told[0] == pytest.approx(1, abs=1e-4)
    for step, cosine in zip(steps[1:], told[1:], strict=True):
        fresh = encode_in_memory(encoder_of(bert, step), corpus).matrix
        expected = torch.nn.functional.cosine_similarity(fresh, step["before"]).mean()
        assert cosine == pytest.approx(float(expected), abs=1e-4)
    assert told[-1] < 0.9999
    fewer = train(files, bert, tmp_path / "f", "--logging_steps", "3", slice_passages=0)
    fewer = [line["cosine_to_fresh"] for line in fewer if "cosine_to_fresh" in line]
    assert fewer == pytest.approx([told[2], told[5]], abs=1e-4)
    log = train(files, bert, tmp_path / "all", slice_passages=48)
    told = [line["cosine_to_fresh"] for line in log if "cosine_to_fresh" in line]
    assert told == pytest.approx([1] * 6, abs=1e-4)


@pytest.mark.parametrize("strategy", ["epoch", "no"])
def test_the_age_is_told_with_lines_of_steps_alone(bert, files, tmp_path, strategy):
    log = train(files, bert, tmp_path / "out", logging_strategy=strategy)
    assert not any("cosine_to_fresh" in line for line in log)


def test_one_of_two_vectors_of_a_passage_goes_back(
    bert, files, tmp_path, steps, monkeypatch
):
    """With dropout they differ, and the last column's is what every process writes."""
    seen, loss_of = [], DynamicTrainer.loss_of

    def watch(self, queries, passages, inputs):
        seen.append((inputs["docids"], passages.detach().clone()))
        return loss_of(self, queries, passages, inputs)

    monkeypatch.setattr(DynamicTrainer, "loss_of", watch)
    train(files, bert, tmp_path / "out", dynamic_per_query=4, dropout=0.3)
    twice = 0
    for (docids, passages), step in zip(seen, steps, strict=True):
        for docid in set(docids):
            first = docids.index(docid)
            last = len(docids) - 1 - docids[::-1].index(docid)
            twice += bool((passages[first] != passages[last]).any())
            vector = step["after"][step["docids"].index(docid)]
            torch.testing.assert_close(vector, passages[last], rtol=0, atol=0)
    assert twice > 5


def test_hits_are_suspected_by_the_best_positive(
    bert, files, qrels, tmp_path, steps, monkeypatch
):
    """Whichever of a topic's was drawn."""
    docids = [docid for of in qrels.values() for docid in of]
    more = {
        qid: {**of, docids[n - 5]: 1, docids[n - 9]: 1}
        for n, (qid, of) in enumerate(qrels.items())
    }
    trec.write_qrels(tmp_path / "more.txt", more)
    seen, with_hits = [], DynamicTrainer._with_hits

    def watch(self, items, queries):
        seen.append((queries, self._matrix.vectors.clone()))
        return with_hits(self, items, queries)

    monkeypatch.setattr(DynamicTrainer, "_with_hits", watch)
    changes = {"drop_absolute_margin": 0, "dynamic_hits": 40, "dynamic_per_query": 20}
    train(files, bert, tmp_path / "out", qrels=tmp_path / "more.txt", **changes)
    above = 0
    for (queries, vectors), step in zip(seen, steps, strict=True):
        for query, item in zip(queries, step["items"], strict=True):
            of = (vectors.double() @ query.double()).tolist()
            scores = dict(zip(step["docids"], of, strict=True))
            (qid,) = item["topics"]
            hits = sorted(scores, key=scores.get, reverse=True)[:40]
            best = max(scores[docid] for docid in more[qid])
            left = [d for d in hits if d not in more[qid] and scores[d] <= best]
            assert set(item["hard"]) <= set(left)
            assert len(item["hard"]) == min(20, len(left))
            above += sum(scores[d] > scores[item["positive"]] for d in item["hard"])
    assert above > 0


def test_a_slice_comes_every_so_many_steps(bert, files, tmp_path, steps):
    train(files, bert, tmp_path / "out", slice_steps=2, slice_passages=20)
    for number, step in enumerate(steps):
        moved = (step["before"] != step["after"]).any(dim=1)
        shown = {d for item in step["items"] for d in (item["positive"], *item["hard"])}
        shown = {step["docids"].index(docid) for docid in shown}
        other = set(moved.nonzero()[:, 0].tolist()) - shown
        turn = {(20 * (number // 2) + n) % 48 for n in range(20)}
        # The vectors of the first slice are what they were.
        assert other <= (turn if number % 2 == 0 else set())
        assert number != 2 or other == turn - shown


def test_vectors_of_the_encoder_are_a_start_and_others_are_refused(
    bert, files, corpus, tmp_path, steps
):
    encode_corpus(DenseEncoder.load(str(bert)), corpus, tmp_path / "vectors")
    train(files, bert, tmp_path / "one", vectors=tmp_path / "vectors")
    train(files, bert, tmp_path / "two")
    one, two = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")
    )
    assert one == two
    assert torch.equal(
        steps[0]["before"], Vectors.load(tmp_path / "vectors").matrix.clone()
    )
    with pytest.raises(DenseHNError, match="made by another encoder"):
        train(files, tmp_path / "one", tmp_path / "x", vectors=tmp_path / "vectors")
    other = dict(list(corpus.items())[::-1])
    encode_corpus(DenseEncoder.load(str(bert)), other, tmp_path / "turned")
    with pytest.raises(DenseHNError, match="made from another corpus"):
        train(files, bert, tmp_path / "x", vectors=tmp_path / "turned")


def test_a_pool_and_suspects_are_kept_to(bert, files, qrels, tmp_path, steps):
    """judged_only draws from what some topic asks for; a margin of −10 suspects all."""
    train(files, bert, tmp_path / "one", judged_only=True)
    judged = {docid for of in qrels.values() for docid in of}
    assert set(steps[0]["docids"]) == judged
    assert all(set(i["hard"]) <= judged for step in steps for i in step["items"])
    steps.clear()
    log = train(files, bert, tmp_path / "two", drop_absolute_margin=10)
    assert not any(item["hard"] for step in steps for item in step["items"])
    assert log[0]["suspected"] > 0


def test_a_hit_that_a_run_names_counts_once(bert, files, tmp_path, steps):
    train(files, bert, tmp_path / "out", negatives=files["run"], dynamic_per_query=3)
    hard = [item["hard"] for step in steps for item in step["items"]]
    assert all(len(docids) == len(set(docids)) for docids in hard)
    assert {len(docids) for docids in hard} <= {3, 4} and len(max(hard, key=len)) == 4


def test_a_slice_is_encoded_once_a_step(bert, files, tmp_path, monkeypatch):
    """Whatever parts the step's batch has."""
    seen, fresh = [], DynamicTrainer._fresh
    monkeypatch.setattr(
        DynamicTrainer,
        "_fresh",
        lambda self, model, rows: (
            seen.append(self.state.global_step) or fresh(self, model, rows)
        ),
    )
    parts = ["--gradient_accumulation_steps", "2", "--logging_steps", "6"]
    train(files, bert, tmp_path / "out", *parts)
    assert seen == [0, 1, 2, 3, 4, 5, 5]


def test_a_stopped_training_goes_on_to_the_same_bytes(
    bert, files, tmp_path, monkeypatch
):
    every = {"save_minutes": 1e-9}
    train(files, bert, tmp_path / "whole", **every)
    compute, called = DynamicTrainer.compute_loss, []

    def stop(self, *args, **kwargs):
        called.append(1)
        if len(called) == 4:
            raise KeyboardInterrupt
        return compute(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(DynamicTrainer, "compute_loss", stop)
        with pytest.raises(KeyboardInterrupt):
            train(files, bert, tmp_path / "stopped", **every)
    train(files, bert, tmp_path / "stopped", **every)
    one, two = (
        (tmp_path / name / "model.safetensors").read_bytes()
        for name in ("whole", "stopped")
    )
    assert one == two


def test_it_learns(bert, files, corpus, topics, qrels, tmp_path):
    train(files, bert, tmp_path / "out", "--max_steps", "40")

    def mean_rank(encoder):
        vectors = encode_in_memory(encoder, corpus)
        scores = (
            encode_texts(encoder, list(topics.values()), "query") @ vectors.matrix.T
        )
        own = [vectors.docids.row(trec.positives(qrels, qid)[0]) for qid in topics]
        best = scores[range(len(own)), own]
        return float((scores >= best[:, None]).sum(dim=1).double().mean())

    after = mean_rank(DenseEncoder.load(str(tmp_path / "out")))
    assert after < 0.7 * mean_rank(DenseEncoder.load(str(bert)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dynamic_per_query": 11}, "from 1 to dynamic_hits .10. less"),
        ({"dynamic_per_query": 0}, "from 1 to dynamic_hits"),
        ({"slice_steps": 0}, "slice_steps starts at 1"),
    ],
)
def test_impossible_settings_are_refused(bert, files, tmp_path, change, message):
    with pytest.raises(DenseHNError, match=message):
        train(files, bert, tmp_path / "out", **change)
