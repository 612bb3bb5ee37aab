"""ADORE with a teacher, against slow loops in float64."""

import math

import pytest
import torch

from dense_hn import DenseHNError, trec
from dense_hn.encode import encode_corpus, encode_in_memory, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.train import arguments, commands
from dense_hn.train.adore import AdoreTrainer

FAST = ["--max_steps", "3", "--per_device_train_batch_size", "8"]
FAST += ["--learning_rate", "1e-3", "--disable_tqdm", "true", "--use_cpu", "true"]


@pytest.fixture
def teacher(files, corpus, qrels, topics):
    """Scores of every second document and of the relevant ones; of q5 no relevant one, and
    of q6 none."""
    draw = torch.Generator().manual_seed(3)
    told = {}
    for qid in topics:
        told[qid] = {
            docid: float(torch.randn((), generator=draw))
            for n, docid in enumerate(corpus)
            if (n % 2 == 0 and qid != "q5") or (docid in qrels[qid]) != (qid == "q5")
        }
    del told["q6"]
    path = files["run"].with_name("teacher.txt")
    trec.write_run(path, told, "t")
    return path


def train(files, bert, corpus, folder, **changes):
    """A short ADORE training."""
    encode_corpus(DenseEncoder.load(str(bert)), corpus, folder / "vectors")
    argv = {"encoder": bert, "vectors": folder / "vectors", "adore_hits": 10}
    argv |= {"topics": files["topics"], "qrels": files["qrels"]}
    argv |= {"output_dir": folder / "adore"} | changes
    commands.train("adore", arguments.argv_of(argv) + FAST)


@pytest.mark.parametrize("name", ["margin-mse", "kl"])
def test_adore_distils_what_the_teacher_scored(
    name, files, bert, corpus, topics, qrels, teacher, tmp_path, monkeypatch, caplog
):
    seen, compute = [], AdoreTrainer.compute_loss

    def watch(self, model, inputs, **_):
        state = {k: v.clone() for k, v in model.model.state_dict().items()}
        loss, found = compute(self, model, inputs, return_outputs=True)
        seen.append((state, inputs["qids"], found["hits"], float(loss.detach())))
        return loss

    monkeypatch.setattr(AdoreTrainer, "compute_loss", watch)
    scale = {"teacher": teacher, "distil": name, "teacher_scale": 2}
    train(files, bert, corpus, tmp_path, **scale)
    vectors = encode_in_memory(DenseEncoder.load(str(bert)), corpus)
    told = trec.read_run(teacher)
    for state, qids, hits, loss in seen:
        encoder = DenseEncoder.load(str(bert)).eval()
        encoder.model.load_state_dict(state)
        squares, divergences = [], []
        for qid, rows in zip(qids, hits.tolist(), strict=True):
            query = encode_texts(encoder, [topics[qid]], "query")[0].double()
            score = dict(
                zip(
                    vectors.docids,
                    (20 * vectors.matrix.double() @ query).tolist(),
                    strict=True,
                )
            )
            known = {d: 2 * s for d, s in told.get(qid, {}).items()}
            relevant = [d for d in qrels[qid] if d in known]
            best = max(relevant, key=known.get)
            listed = [vectors.docids[row] for row in rows]
            listed = [d for d in listed if d in known and d not in qrels[qid]]
            squares += [
                (score[best] - score[d] - known[best] + known[d]) ** 2 for d in listed
            ]
            ours = math.fsum(math.exp(score[d]) for d in [best, *listed])
            theirs = math.fsum(math.exp(known[d]) for d in [best, *listed])
            if listed:
                divergences.append(
                    math.fsum(
                        math.exp(known[d])
                        / theirs
                        * (known[d] - math.log(theirs) - score[d] + math.log(ours))
                        for d in [best, *listed]
                    )
                )
        values = squares if name == "margin-mse" else divergences
        assert loss == pytest.approx(sum(values) / len(values), rel=1e-4)
    # Three batches of eight have all others.
    assert {qid for _, qids, *_ in seen for qid in qids} == topics.keys() - {"q5", "q6"}
    said = "2 of 24 queries have no relevant document with a score"
    assert said in caplog.text


def test_adore_refuses_a_teacher_of_no_relevant_document(
    files, bert, corpus, qrels, run, tmp_path
):
    told = {
        qid: {docid: score for docid, score in hits.items() if docid not in qrels[qid]}
        for qid, hits in run.items()
    }
    trec.write_run(tmp_path / "teacher", told, "t")
    with pytest.raises(DenseHNError, match="relevant document with a score"):
        changes = {"teacher": tmp_path / "teacher", "distil": "kl"}
        train(files, bert, corpus, tmp_path, **changes)


def test_a_weight_mixes_both_losses(
    files, bert, corpus, qrels, teacher, tmp_path, monkeypatch
):
    """Of the first step, with one and the same weights, where no topic is left out."""
    told = trec.read_run(teacher)
    for qid in ("q5", "q6"):
        told[qid] = told["q4"] | dict.fromkeys(qrels[qid], 1.0)
    trec.write_run(teacher, told, "t")
    first = {}
    for name, changes in (
        ("own", {}),
        ("distil", {"teacher": teacher, "distil": "kl"}),
        ("mixed", {"teacher": teacher, "distil": "kl", "distil_weight": 0.3}),
    ):
        losses, compute = [], AdoreTrainer.compute_loss

        def watch(self, *args, losses=losses, compute=compute, **kwargs):
            loss = compute(self, *args, **kwargs)
            losses.append(float(loss.detach()))
            return loss

        (tmp_path / name).mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(AdoreTrainer, "compute_loss", watch)
            train(files, bert, corpus, tmp_path / name, **changes)
        first[name] = losses[0]
    expected = 0.7 * first["own"] + 0.3 * first["distil"]
    assert first["mixed"] == pytest.approx(expected, rel=1e-5)
    assert first["own"] != pytest.approx(first["distil"], rel=0.1)


def test_a_cross_encoder_has_no_teacher(files, bert):
    argv = {"encoder": bert, "corpus": files["corpus"], "topics": files["topics"]}
    argv |= {"qrels": files["qrels"], "negatives": files["run"], "output_dir": "x"}
    with pytest.raises(DenseHNError, match="distil"):
        commands.parse("cross", arguments.argv_of(argv | {"distil": "kl"}))
