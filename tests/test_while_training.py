"""What happens between the steps: evaluation, the best weights, fresh negatives."""

import json
import shutil

import pytest

from dense_hn import DenseHNError, mine, trec
from dense_hn.collections.corpus import Corpus
from dense_hn.encode import encode_corpus, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.evaluate.measures import per_query
from dense_hn.train import arguments, commands, evaluation, hard_negatives, joint
from dense_hn.train.hard_negatives import HardNegatives, Refresh
from dense_hn.train.supervision import Supervision

STEPS = {"max_steps": 8, "per_device_train_batch_size": 8, "disable_tqdm": True}
STEPS |= {"use_cpu": True, "lr_scheduler_type": "constant"}
EVALUATE = {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True}


@pytest.fixture
def train(bert, files, corpus, tmp_path):
    """Runs a stage on the made collection; returns its output folder and its log."""
    encode_corpus(DenseEncoder.load(str(bert)), corpus, tmp_path / "vectors")

    def run(stage, name, **changes):
        argv = {"encoder": bert, "topics": files["topics"], "qrels": files["qrels"]}
        if stage == "adore":
            argv |= {"vectors": tmp_path / "vectors", "adore_hits": 10}
        else:
            argv |= {"corpus": files["corpus"], "negatives": files["run"]}
        argv |= STEPS | {"output_dir": tmp_path / name} | changes
        commands.train(stage, arguments.argv_of(argv))
        log = (tmp_path / f"{name}.log.jsonl").read_text().splitlines()
        return tmp_path / name, [json.loads(line) for line in log]

    return run


@pytest.fixture
def dev(files):
    """The topics again, to evaluate on."""
    return {"eval_topics": files["topics"], "eval_qrels": files["qrels"]}


def measured(folder, passages, corpus, files, tmp_path, measures):
    """Measures by the commands that a user would give after the training."""
    encoder = DenseEncoder.load(str(folder))
    vectors = encode_corpus(passages or encoder, corpus, tmp_path / "again")
    mine.mine(encoder, vectors, files["topics"], 48, tmp_path / "run", "t")
    judged, run = trec.read_qrels(files["qrels"]), trec.read_run(tmp_path / "run")
    scored = per_query(judged, run, measures)
    return {name: sum(of.values()) / len(judged) for name, of in scored.items()}


@pytest.mark.parametrize(
    ("stage", "rate"), [("star", 1e-2), ("warmup", 1e-2), ("adore", 0.03)]
)
def test_the_best_weights_are_kept(
    stage, rate, train, dev, bert, corpus, files, tmp_path
):
    """A learning rate that first helps and then destroys."""
    measures = ["RR@10", "nDCG@5", "R@3"]
    more = dev | EVALUATE | {"learning_rate": rate, "eval_measures": measures}
    folder, log = train(stage, "kept", **more)
    curve = {line["step"]: line for line in log if "eval_RR@10" in line}
    assert list(curve) == [0, 2, 4, 6, 8]
    best = max(list(curve)[1:], key=lambda step: curve[step]["eval_RR@10"])
    assert best < 8, {s: line["eval_RR@10"] for s, line in curve.items()}
    passages = DenseEncoder.load(str(bert)) if stage == "adore" else None
    scored = measured(folder, passages, corpus, files, tmp_path, measures)
    for name in measures:
        assert curve[best][f"eval_{name}"] == pytest.approx(scored[name], abs=1e-9)
    # Evaluation changes nothing: the same weights as of a training that ended there.
    short, _ = train(stage, "short", learning_rate=rate, max_steps=best)
    weights = (folder / "model.safetensors").read_bytes()
    assert weights == (short / "model.safetensors").read_bytes()
    assert not (tmp_path / ".kept.training").exists()


def test_the_best_weights_are_kept_without_eval_steps(
    train, dev, files, corpus, tmp_path
):
    """Evaluated as often as the loss is logged, and saved each time."""
    more = dev | {"eval_strategy": "steps", "logging_steps": 2, "learning_rate": 1e-2}
    folder, log = train("star", "kept", **more)
    curve = {line["step"]: line["eval_RR@10"] for line in log if "eval_RR@10" in line}
    assert list(curve) == [2, 4, 6, 8]
    best = max(curve, key=curve.get)
    assert best < 8
    scored = measured(folder, None, corpus, files, tmp_path, ["RR@10"])
    assert curve[best] == pytest.approx(scored["RR@10"], abs=1e-9)


def test_the_curve_starts_with_the_encoder_as_it_comes(
    train, dev, corpus, files, bert, tmp_path
):
    """By measures of their own level; one topic of 24 has a document of grade 2."""
    measures = ["R(rel=2)@40", "RR@10"]
    _, log = train("star", "out", eval_measures=measures, **dev, **EVALUATE)
    scored = measured(bert, None, corpus, files, tmp_path, measures)
    assert log[0]["step"] == 0
    for name in measures:
        assert log[0][f"eval_{name}"] == pytest.approx(scored[name], abs=1e-9)
    assert scored["R(rel=2)@40"] == pytest.approx(1 / 24)


def test_training_topics_are_searched_for_as_well(train, dev):
    """All of them are the dev topics here; of some, the mean moves. The last weights stay."""
    more = dev | EVALUATE | {"learning_rate": 1e-2, "load_best_model_at_end": False}
    _, log = train("star", "all", eval_training_topics=100, **more)
    curve = [line for line in log if "eval_RR@10" in line]
    assert [line["step"] for line in curve] == [0, 2, 4, 6, 8]
    for line in curve:
        assert line["eval_train_RR@10"] == pytest.approx(line["eval_RR@10"], abs=1e-12)
    few, log = train("adore", "few", eval_training_topics=3, **more)
    assert any(line.get("eval_train_RR@10") != line.get("eval_RR@10") for line in log)
    plain, _ = train("adore", "plain", learning_rate=1e-2)
    weights = [(of / "model.safetensors").read_bytes() for of in (few, plain)]
    assert weights[0] == weights[1]


def test_early_stopping(train, dev):
    """Nothing is learnt, so nothing gets better after the first evaluation."""
    more = dev | {"eval_strategy": "steps", "eval_steps": 1, "learning_rate": 0}
    _, log = train("star", "out", early_stopping=2, **more)
    assert [line["step"] for line in log if "eval_RR@10" in line] == [1, 2, 3]


def test_a_share_of_the_corpus_holds_all_that_is_judged(corpus, qrels, bert):
    encoder = DenseEncoder.load(str(bert))

    judged = set().union(*qrels.values())

    def docids(share, seed=1):
        passages = Corpus.of(corpus)
        found = evaluation.encode_share(encoder, judged, passages, share, seed)
        return set(found.docids)

    assert docids(0.0) == judged
    assert docids(1.0) == set(corpus)
    half = docids(0.5)
    assert judged < half < set(corpus)
    assert docids(0.5) == half
    assert docids(0.5, seed=2) != half


def test_evaluation_over_a_share(train, dev, corpus, files, bert, qrels, tmp_path):
    """With share 0 the judged documents alone are searched: an easier task."""
    judged = {d: corpus[d] for d in corpus if any(d in row for row in qrels.values())}
    _, log = train("star", "out", **dev, **EVALUATE, eval_share=0)
    scored = measured(bert, None, judged, files, tmp_path, ["RR@10"])
    assert log[0]["eval_RR@10"] == pytest.approx(scored["RR@10"], abs=1e-9)


def test_stages_with_one_share_start_from_the_same_figures(train, dev, corpus):
    """Of one encoder, star's passages being encoded and adore's taken from vectors."""
    more = dev | EVALUATE | {"eval_share": 0.3, "eval_training_topics": 5}
    starts = [train(stage, stage, **more)[1][0] for stage in ("star", "adore")]
    names = [name for name in starts[0] if name.startswith("eval_")]
    assert len(names) == 6
    for name in names:
        assert starts[0][name] == pytest.approx(starts[1][name], abs=1e-9)
    whole = train("adore", "whole", **dev, **EVALUATE)[1][0]
    assert whole["eval_RR@10"] < starts[1]["eval_RR@10"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eval_strategy": "steps"}, "missing: eval_topics, eval_qrels"),
        ({"eval_topics": "x"}, "eval_topics: nothing is evaluated; give --eval_strat"),
        ({"early_stopping": 2}, "early_stopping: nothing is evaluated"),
        ({"eval_on_start": True}, "eval_on_start: nothing is evaluated"),
        ({"eval_training_topics": 5}, "eval_training_topics: nothing is evaluated"),
        ({"eval_training_topics": -1}, "eval_training_topics is -1; it starts at 0"),
    ],
)
def test_incomplete_evaluation_is_refused(change, message, train):
    with pytest.raises(DenseHNError, match=message):
        train("adore", "out", eval_steps=2, **change)


def test_a_dev_topic_without_text_is_refused(train, dev, files, tmp_path):
    (tmp_path / "other.txt").write_text("new 0 red-lamp 1\n")
    more = dev | {"eval_qrels": tmp_path / "other.txt"}
    with pytest.raises(DenseHNError, match="query 'new' has no text in"):
        train("star", "out", **more, **EVALUATE)


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        ({"refresh_steps": 2}, [2, 4, 6]),
        ({"refresh_epochs": 1}, [3, 6]),
        ({"refresh_epochs": 1, "judged_only": True}, [3, 6]),
    ],
)
def test_negatives_are_mined_anew(
    every, steps, train, corpus, topics, qrels, bert, monkeypatch
):
    """24 topics in batches of 8; what is drawn from is the model's own top at the time.

    With ``judged_only`` that of what some topic asks for.
    """
    seen = []
    searched = list(corpus)
    if "judged_only" in every:
        asked = {docid for qid in qrels for docid in trec.positives(qrels, qid)}
        searched = [docid for docid in corpus if docid in asked]
        assert 6 < len(searched) < len(corpus)
    refresh = Refresh._refresh

    def watched(self, args, model, state):
        refresh(self, args, model, state)
        weights = {name: w.clone() for name, w in model.state_dict().items()}
        seen.append((state.global_step, weights, self._dataset.hard))

    monkeypatch.setattr(Refresh, "_refresh", watched)
    # The second run stays, and the last gives way.
    more = {"negatives_depth": 6, "learning_rate": 1e-2, "negatives_per_query": [1, 2]}
    files = [str(train("star", "first")[0].parent / "run.txt")] * 2
    train("star", "out", negatives=files, **more, **every)
    done = [moment for moment in seen if moment[0] < STEPS["max_steps"]]
    assert [step for step, _, _ in done] == steps
    encoder = DenseEncoder.load(str(bert))
    tops = []
    for _, weights, hard in done:
        encoder.load_state_dict(weights)
        texts = [corpus[docid] for docid in searched]
        matrix = encode_texts(encoder, texts, "passage").double()
        queries = encode_texts(encoder, list(topics.values()), "query").double()
        best = (queries @ matrix.T).topk(6).indices.tolist()
        given, own = hard
        top = {}
        for qid, rows in zip(topics, best, strict=True):
            docids = {searched[row] for row in rows}
            top[qid] = docids - set(trec.positives(qrels, qid))
            assert set(own.hits(qid)) == top[qid]
            assert len(given.draw(qid, 0)) == 1
        tops.append(top)
        assert set(given.hits("q0")) != top["q0"]
    assert tops[0] != tops[-1]


def test_queries_that_have_no_negative_left_are_told(train, caplog, monkeypatch):
    """Without other negatives, too, the training goes on."""
    retrieve = hard_negatives.retrieve

    def without_one(*args):
        return ((q, h) for q, h in retrieve(*args) if q != "q3")

    monkeypatch.setattr(hard_negatives, "retrieve", without_one)
    train("star", "out", refresh_steps=3, in_batch=False, negatives_depth=6)
    assert "1 of 24 queries have no negatives in hits of step 3" in caplog.text


def test_the_share_of_new_hits_is_told(train, caplog):
    caplog.set_level("INFO", "dense_hn")
    train("star", "out", refresh_steps=3, negatives_depth=6)
    told = [r.getMessage() for r in caplog.records if "are now" in r.getMessage()]
    assert len(told) == 2
    assert told[0].startswith("negatives are now the hits of step 3: ")


def test_the_share_of_new_hits_by_hand(files, corpus):
    argv = {name: files[name] for name in ("corpus", "topics", "qrels")}
    argv |= {"encoder": "x", "output_dir": "x", "negatives": files["run"]}
    argv |= {"negatives_depth": 2}
    args, _ = commands.parse("star", arguments.argv_of(argv))
    supervision = Supervision(args)
    hard = HardNegatives(args, supervision, corpus, "corpus", seed=1)
    best = {q: trec.ranked(hits) for q, hits in trec.read_run(files["run"]).items()}
    # Of the first topic's two best one stays; all others keep both.
    run = {q: {docids[0]: 2.0, docids[1]: 1.0} for q, docids in best.items()}
    run["q0"] = {best["q0"][0]: 2.0, best["q0"][5]: 1.0}
    assert hard.replace_last(run, "new") == pytest.approx(1 / 48)


def test_a_resumed_training_takes_up_its_negatives(train, tmp_path, monkeypatch):
    """From its own folder; from a checkpoint that lies elsewhere it is refused."""
    kept = tmp_path / "kept"
    save = joint.JointTrainer._save_checkpoint

    def save_and_keep(self, *arguments):
        save(self, *arguments)
        if self.state.global_step == 6:
            shutil.copytree(self.args.output_dir, kept)

    used = []
    use = Refresh._use

    def watched(self, run, step):
        use(self, run, step)
        hits = {qid: self._dataset.hard[0].hits(qid) for qid in run}
        used.append((step, hits))

    monkeypatch.setattr(joint.JointTrainer, "_save_checkpoint", save_and_keep)
    monkeypatch.setattr(Refresh, "_use", watched)
    more = {"refresh_steps": 4, "save_strategy": "steps", "save_steps": 3}
    more |= {"negatives_depth": 6, "learning_rate": 1e-2}
    train("star", "whole", **more)
    assert [step for step, _ in used] == [4]
    train("star", "resumed", resume_from_checkpoint=kept / "checkpoint-6", **more)
    assert used[1] == used[0]
    for path in kept.glob("negatives-*"):
        path.unlink()
    with pytest.raises(DenseHNError, match="negatives-STEP.txt beside it"):
        train("star", "again", resume_from_checkpoint=kept / "checkpoint-6", **more)


def test_what_an_older_model_suspected_is_forgotten(files, corpus, topics, qrels):
    """By hand: the filter drops the best of each run; a fresh run, a fresh verdict."""
    argv = {name: files[name] for name in ("corpus", "topics", "qrels")}
    argv |= {"encoder": "x", "output_dir": "x", "negatives": files["run"]}
    argv |= {"drop_max_score": 19.5, "negatives_skip": 2}
    args, _ = commands.parse("star", arguments.argv_of(argv))
    supervision = Supervision(args)
    known = {qid: set(docids) for qid, docids in supervision.excluded.items()}
    hard = HardNegatives(args, supervision, corpus, "corpus", seed=1)
    old = {q: trec.ranked(hits) for q, hits in trec.read_run(files["run"]).items()}
    for qid in topics:
        assert supervision.excluded[qid] == known[qid] | set(old[qid][:2])
    fresh = {
        q: {d: float(n) for n, d in enumerate(docids)} for q, docids in old.items()
    }
    hard.replace_last(fresh, "fresh")
    for qid in topics:
        assert supervision.excluded[qid] == known[qid] | set(old[qid][-2:])


def test_distilling_draws_what_the_teacher_scored_within_the_window(files, corpus):
    """By hand: of the first four hits, the teacher scored the second and the fourth."""
    best = {q: trec.ranked(hits) for q, hits in trec.read_run(files["run"]).items()}
    qrels = trec.read_qrels(files["qrels"])
    told = {
        q: {d: 1.0 for d in (docids[1], docids[3], *docids[6:], *qrels[q])}
        for q, docids in best.items()
    }
    teacher = files["run"].with_name("teacher.txt")
    trec.write_run(teacher, told, "t")
    argv = {name: files[name] for name in ("corpus", "topics", "qrels")}
    argv |= {"encoder": "x", "output_dir": "x", "negatives": files["run"]}
    argv |= {"negatives_depth": 4, "distil": "kl", "teacher": teacher}
    args, _ = commands.parse("star", arguments.argv_of(argv))
    supervision = Supervision(args)
    hard = HardNegatives(args, supervision, corpus, "it", seed=1, scored_only=True)
    (source,) = hard.sources()
    for qid, docids in best.items():
        relevant = trec.positives(qrels, qid)
        expected = {docids[1], docids[3]}.difference(relevant)
        assert set(source.hits(qid)) == expected


def test_step_refreshes_do_not_go_with_workers(train):
    with pytest.raises(DenseHNError, match="would not hear of new negatives"):
        train("star", "out", refresh_steps=2, dataloader_num_workers=1)


def test_refreshing_is_repeatable(train):
    one, two = (
        train("star", name, refresh_steps=2, learning_rate=1e-2)[0]
        for name in ("one", "two")
    )
    weights = (one / "model.safetensors").read_bytes()
    assert weights == (two / "model.safetensors").read_bytes()
    plain, _ = train("star", "plain", learning_rate=1e-2)
    assert weights != (plain / "model.safetensors").read_bytes()


def test_negatives_that_some_query_asks_for(files, corpus, topics, qrels):
    """By hand: the first three hits of those that are relevant to another topic."""
    argv = {name: files[name] for name in ("corpus", "topics", "qrels")}
    argv |= {"encoder": "x", "output_dir": "x", "negatives": files["run"]}
    argv |= {"negatives_depth": 3, "judged_only": True, "random_per_query": 2}
    args, _ = commands.parse("star", arguments.argv_of(argv))
    supervision = Supervision(args)
    asked_for = {d for q in topics for d in trec.positives(qrels, q)}
    assert 0 < len(asked_for) < len(corpus)
    hard = HardNegatives(args, supervision, corpus, "corpus", seed=1)
    hits = {q: trec.ranked(hits) for q, hits in trec.read_run(files["run"]).items()}
    hard.replace_last(trec.read_run(files["run"]), "again")
    (source,) = hard.sources()
    for qid in topics:
        best = [d for d in hits[qid] if d in asked_for][:3]
        own = trec.positives(qrels, qid)
        assert source.hits(qid) == [d for d in best if d not in own]
    in_order = list(corpus)
    assert supervision.pool(in_order) == [d for d in in_order if d in asked_for]
