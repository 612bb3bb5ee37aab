"""Re-ranking: scores as sentence-transformers', depths as worked by hand, restarts."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sentence_transformers import CrossEncoder as Theirs
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dense_hn import DenseHNError, cross_encoder, rerank, trec
from dense_hn.cross_encoder import CrossEncoder
from dense_hn.report import comparison
from dense_hn.train import arguments, commands, cross, recipe
from dense_hn.train.pipeline import Pipeline

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]


def made(bert, folder, labels):
    """A cross-encoder of so many labels, its head drawn at random, on the tiny BERT."""
    torch.manual_seed(labels)
    model = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=labels)
    model.classifier.weight.data.normal_(std=3)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokenizer.model_max_length = 20
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def one_label(bert, tmp_path_factory):
    return made(bert, tmp_path_factory.mktemp("cross"), 1)


@pytest.fixture(scope="module")
def two_labels(bert, tmp_path_factory):
    return made(bert, tmp_path_factory.mktemp("cross"), 2)


def call(cross, files, output, depths=(), **more):
    """Re-rank the made run."""
    where = files["run"], files["topics"], files["corpus"]
    rerank.rerank(cross, *where, output, depths, **more)


def all_pairs(topics, run, corpus):
    return [(topics[qid], corpus[docid]) for qid in topics for docid in run[qid]]


@pytest.mark.parametrize("labels", ["one_label", "two_labels"])
def test_scores_are_those_of_sentence_transformers(
    labels, topics, run, corpus, request
):
    """To 1e-5; pairs of many lengths, the longest cut by both at 20 tokens."""
    folder = request.getfixturevalue(labels)
    pairs = all_pairs(topics, run, corpus)
    cross = CrossEncoder.load(str(folder))
    cut = [len(text.split()) + len(query.split()) + 3 > 20 for query, text in pairs]
    assert any(cut) and not all(cut)
    with tqdm(disable=True) as progress:
        ours = torch.tensor(rerank.score(cross, pairs, progress))
    theirs = Theirs(str(folder), device="cpu").predict(
        pairs, activation_fn=torch.nn.Identity(), convert_to_tensor=True
    )
    if labels == "two_labels":
        theirs = theirs.double().log_softmax(dim=1)
        theirs = theirs[:, 1] - theirs[:, 0]
    assert ours.std() > 0.1
    assert torch.allclose(ours.double(), theirs.double(), atol=1e-5, rtol=0)


def test_depths_by_hand():
    """c and a tie in 32 bits, and trec_eval puts c first; d is last, and stays there."""
    hits = {"a": 5.0, "b": 7.0, "c": 5.0 + 1e-9, "d": 1.0}
    scores = {"a": 0.5, "b": -2.0, "c": 0.1}
    assert rerank.reordered(hits, scores, 1) == {"b": -2, "c": -3, "a": -4, "d": -5}
    assert rerank.reordered(hits, scores, 2) == {"b": -2, "c": 0.1, "a": -3, "d": -4}
    assert rerank.reordered(hits, scores, 3) == {**scores, "d": -3}
    everything = {**scores, "d": 9.0}
    for depth in (4, 5, None):
        assert rerank.reordered(hits, everything, depth) == everything


def test_runs_of_several_depths_as_a_slow_loop_makes_them(
    one_label, files, topics, run, corpus, tmp_path, monkeypatch
):
    """From scores of single pairs by transformers alone; every pair is scored once."""
    model = AutoModelForSequenceClassification.from_pretrained(one_label).eval()
    tokenizer = AutoTokenizer.from_pretrained(one_label)
    scored = []
    batch = CrossEncoder.batch
    monkeypatch.setattr(
        CrossEncoder,
        "batch",
        lambda self, pairs: scored.extend(pairs) or batch(self, pairs),
    )
    call(
        CrossEncoder.load(str(one_label)), files, tmp_path / "out.txt", [1, 20, 5, 100]
    )
    pairs = all_pairs(topics, run, corpus)
    assert sorted(scored) == sorted(pairs) and len(set(scored)) == len(scored)
    slow, moved = {}, 0
    for query, docid in [(topics[qid], docid) for qid in topics for docid in run[qid]]:
        cut = {"truncation": True, "max_length": 20}
        tokens = tokenizer(query, corpus[docid], **cut, return_tensors="pt")
        with torch.no_grad():
            slow[query, docid] = float(model(**tokens).logits[0, 0])
    for depth in (1, 5, 20, 100):
        found = trec.read_run(tmp_path / f"out-{depth}.txt")
        assert list(found) == list(topics)
        for qid, query in topics.items():
            # In its order, best first.
            docids = list(run[qid])
            scores = {docid: slow[query, docid] for docid in docids[:depth]}
            best = sorted(scores, key=scores.get, reverse=True)
            expected = [*best, *docids[depth:]]
            # Passages that differ in what was cut off tie, and differ in rounding.
            told = {docid: round(value, 4) for docid, value in scores.items()}
            got = list(found[qid])
            assert [told.get(d) for d in got] == [told.get(d) for d in expected]
            assert got[depth:] == docids[depth:] and {*got} == {*docids}
            moved += got != docids
            for docid in best:
                assert found[qid][docid] == pytest.approx(scores[docid], abs=1e-4)
    assert moved > 50


def test_a_teachers_run_lists_the_relevant_and_only_what_was_scored(
    one_label, files, topics, qrels, run, tmp_path, caplog
):
    cross, out = CrossEncoder.load(str(one_label)), tmp_path / "teacher"
    call(cross, files, out, [4], qrels_path=files["qrels"])
    found = trec.read_run(out)
    call(cross, files, tmp_path / "all")
    everything, added = trec.read_run(tmp_path / "all"), 0
    for qid in topics:
        relevant = trec.positives(qrels, qid)
        assert {*found[qid]} == {*list(run[qid])[:4], *relevant}
        added += len({*relevant}.difference(list(run[qid])[:4]))
        for docid in {*found[qid]} & {*everything[qid]}:
            assert found[qid][docid] == pytest.approx(everything[qid][docid], abs=1e-4)
    assert added > 10
    # What is not judged is counted.
    few = {qid: qrels[qid] for qid in list(qrels)[3:]}
    trec.write_qrels(files["qrels"], few)
    call(cross, files, tmp_path / "few", [4], qrels_path=files["qrels"])
    assert "3 of 24 queries have no relevant document" in caplog.text


def test_a_run_is_known_by_what_it_was_made_from(
    one_label, two_labels, files, tmp_path, caplog, monkeypatch
):
    caplog.set_level(logging.INFO, "dense_hn")
    cross, out = CrossEncoder.load(str(one_label)), tmp_path / "out.txt"
    asked = []
    score = rerank.score
    monkeypatch.setattr(
        rerank,
        "score",
        lambda cross, pairs, *rest: (
            asked.append(len(pairs)) or score(cross, pairs, *rest)
        ),
    )
    call(cross, files, out, [3, 10])
    assert sum(asked) == 240
    facts = json.loads((tmp_path / "out-3.txt.json").read_text())
    assert facts["made_from"]["depth"] == 3 and facts["costs"]["seconds"] > 0
    call(cross, files, out, [10, 3])
    assert sum(asked) == 240
    # Only what the run that is not there needs.
    call(cross, files, out, [2, 3, 10])
    assert sum(asked) == 240 + 48
    before = (tmp_path / "out-10.txt").read_bytes()
    call(CrossEncoder.load(str(one_label), 12), files, out, [10, 3])
    assert sum(asked) == 240 + 48 + 240
    assert (tmp_path / "out-10.txt").read_bytes() != before
    call(CrossEncoder.load(str(two_labels)), files, out, [10, 3])
    assert sum(asked) == 240 + 48 + 480
    assert not list(tmp_path.glob(".*"))


def test_after_a_stop_the_missing_topics_are_scored(
    one_label, files, tmp_path, monkeypatch
):
    cross = CrossEncoder.load(str(one_label))
    call(cross, files, tmp_path / "whole", [5])
    score, asked = rerank.score, []

    def stop(*arguments):
        asked.append(len(arguments[1]))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return score(*arguments)

    monkeypatch.setattr(rerank, "score", stop)
    with pytest.raises(KeyboardInterrupt):
        call(cross, files, tmp_path / "out", [5])
    assert not (tmp_path / "out").exists()
    call(cross, files, tmp_path / "out", [5])
    # 16 topics, 8 that were stopped, and these again.
    assert asked == [80, 40, 40]
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_two_processes_write_what_one_does(one_label, files, tmp_path):
    """By the command, whose tag is the default."""
    words = ["-m", "dense_hn.rerank", "--model", one_label, "--depth", "2", "5"]
    words += ["--first_stage", files["run"], "--topics", files["topics"]]
    words += ["--corpus", files["corpus"], "--output", tmp_path / "two"]
    done = subprocess.run(
        [*map(str, [*TORCHRUN, *words])],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("two-5: ") == 1
    call(CrossEncoder.load(str(one_label)), files, tmp_path / "one", [2, 5])
    for depth in (2, 5):
        one, two = (tmp_path / f"{name}-{depth}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def changed(folder, source, **config):
    """A copy of a folder with other settings in its config."""
    shutil.copytree(source, folder)
    values = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(values))
    return str(folder)


def test_what_is_no_cross_encoder_is_refused(bert, one_label, two_labels, tmp_path):
    with pytest.raises(DenseHNError, match="is no cross-encoder.*train cross"):
        CrossEncoder.load(str(bert))
    three = made(bert, tmp_path / "three", 3)
    with pytest.raises(DenseHNError, match="has 3 labels; a cross-encoder has one"):
        CrossEncoder.load(str(three))
    # The encoder's weights under a config that promises a head.
    headless = changed(
        tmp_path / "headless", bert, architectures=["BertForSequenceClassification"]
    )
    with pytest.raises(DenseHNError, match=r"lacks .*\.\w+, without which"):
        CrossEncoder.load(headless)
    for length in (4, 65):
        with pytest.raises(DenseHNError, match=f"5 to 64 tokens, {length} asked"):
            CrossEncoder.load(str(one_label), length)
    with pytest.raises(DenseHNError, match="no such"):
        CrossEncoder.load(str(tmp_path / "nowhere"))
    (Path(headless) / "config.json").write_text("{")
    with pytest.raises(DenseHNError, match="cannot be loaded as a cross-encoder"):
        CrossEncoder.load(headless)


def test_broken_input_is_refused_before_anything_is_scored(
    one_label, files, topics, run, tmp_path, monkeypatch, caplog
):
    cross, out = CrossEncoder.load(str(one_label)), tmp_path / "out"
    monkeypatch.setattr(rerank, "score", lambda *_: pytest.fail("scored"))
    for depths in ([0], [5, 5], [-1, 3]):
        with pytest.raises(DenseHNError, match="numbers from 1, each once"):
            call(cross, files, out, depths)
    with pytest.raises(DenseHNError, match="out: tag 'my run' is empty or has white"):
        call(cross, files, out, [5], tag="my run")
    with pytest.raises(DenseHNError, match="give one --depth"):
        call(cross, files, out, [5, 3], qrels_path=files["qrels"])
    with pytest.raises(DenseHNError, match="--fp16 is for a GPU"):
        call(cross, files, out, [5], half="fp16")
    with pytest.raises(DenseHNError, match="would replace the run that it is made"):
        call(cross, files, files["run"], [5])
    (tmp_path / "out-5").write_text("a letter\n")
    with pytest.raises(DenseHNError, match="out-5: is no run"):
        call(cross, files, out, [5, 3])
    (tmp_path / "out-5").unlink()
    files["qrels"].write_text("q0 0 nowhere 1\n")
    with pytest.raises(DenseHNError, match="qrels.txt: docid 'nowhere'"):
        call(cross, files, out, [5], qrels_path=files["qrels"])
    trec.write_topics(files["topics"], dict(list(topics.items())[:20]))
    with pytest.raises(DenseHNError, match=r"run.txt: query 'q20' has no text"):
        call(cross, files, out)
    trec.write_topics(files["topics"], topics)
    trec.write_run(files["run"], {**run, "q3": {"nowhere": 1.0}}, "x")
    with pytest.raises(DenseHNError, match="docid 'nowhere'.*q3.*is not in .*corpus"):
        call(cross, files, out)
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_topics_without_hits_are_counted(one_label, files, run, tmp_path, caplog):
    trec.write_run(files["run"], {q: run[q] for q in list(run)[2:]}, "x")
    call(CrossEncoder.load(str(one_label)), files, tmp_path / "out", [1])
    assert "2 of 24 queries have no hit" in caplog.text
    assert len(trec.read_run(tmp_path / "out")) == 22


def test_a_score_that_is_no_number_is_refused(one_label, files, tmp_path):
    cross = CrossEncoder.load(str(one_label))
    cross.model.classifier.bias.data.fill_(torch.nan)
    with pytest.raises(DenseHNError, match="'where is a lamp , red' is not a finite"):
        call(cross, files, tmp_path / "out", [2])
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_no_code_or_pickle_in_a_folder_is_run(one_label, tmp_path):
    """As of encoders: weights are safetensors, classes are transformers' own."""
    run, folder = tmp_path / "run", tmp_path / "model"
    shutil.copytree(one_label, folder)
    (folder / "modeling.py").write_text(f"open({str(run)!r}, 'w')\nclass Model: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    CrossEncoder.load(str(folder))
    assert not run.exists()


FAST = ["--disable_tqdm", "true", "--use_cpu", "true", "--save_minutes", "0"]


def cross_argv(files, encoder, output, **changes):
    """Arguments of a short training on the made collection."""
    argv = {"encoder": encoder, "corpus": files["corpus"], "topics": files["topics"]}
    argv |= {"qrels": files["qrels"], "negatives": files["run"], "output_dir": output}
    argv |= {"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-3}
    return arguments.argv_of(argv | changes) + FAST


def test_a_trained_cross_encoder_tells_relevant_passages(
    bert, files, topics, qrels, run, corpus, tmp_path
):
    """And is a folder that transformers and sentence-transformers score alike with."""
    out = tmp_path / "cross"
    steps = {"max_steps": 40, "learning_rate": 1e-2, "dropout": 0, "length": 24}
    commands.train("cross", cross_argv(files, bert, out, **steps))
    log = (tmp_path / "cross.log.jsonl").read_text()
    assert '"positive_first"' in log
    assert (tmp_path / "cross.costs.json").is_file() and not list(tmp_path.glob(".*"))
    cross = CrossEncoder.load(str(out))
    assert cross.length == 24
    pairs = all_pairs(topics, run, corpus)
    with tqdm(disable=True) as progress:
        ours = torch.tensor(rerank.score(cross, pairs, progress))
    # Without a word of ours: its config says that scores are logits.
    theirs = Theirs(str(out), device="cpu").predict(pairs, convert_to_tensor=True)
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=0)
    call(cross, files, tmp_path / "out")
    found = trec.read_run(tmp_path / "out")

    def places(run):
        """Of the relevant documents that the run lists."""
        listed = [
            trec.ranked(run[q]).index(d)
            for q in topics
            for d in qrels[q]
            if d in run[q]
        ]
        return sum(listed) / len(listed)

    assert places(found) < places(run) / 2


def test_the_loss_and_its_gradients_are_a_plain_softmaxs(
    bert, files, topics, qrels, corpus, tmp_path, monkeypatch
):
    """Pair by pair, in float64, by transformers alone; fewer negatives for one query.

    With half the batch accumulated twice, and with activations made again, the same.
    """
    trec.write_run(
        files["run"],
        {**trec.read_run(files["run"]), "q1": {"red-lamp": 1.0, "red-clock": 2.0}},
        "x",
    )
    seen, gradients, losses = [], [], []
    from dense_hn.train import cross, trainer

    collate = cross.CrossCollator.__call__
    monkeypatch.setattr(
        cross.CrossCollator,
        "__call__",
        lambda self, items: seen.append(items) or collate(self, items),
    )

    class Keep(trainer.CountUpdates):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            named = model.named_parameters()
            gradients.append(
                {n: p.grad.clone() for n, p in named if p.grad is not None}
            )
            super().on_pre_optimizer_step(args, state, control, **kwargs)

    monkeypatch.setattr(trainer, "CountUpdates", Keep)
    once = {"max_steps": 1, "dropout": 0, "max_grad_norm": 0, "logging_steps": 1}
    once |= {"per_device_train_batch_size": 24, "seed": 3}
    half = {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 2}
    for name, more in (("a", {}), ("b", half), ("c", {"gradient_cache": 5})):
        argv = cross_argv(files, bert, tmp_path / name, **once | more)
        commands.train("cross", argv)
        lines = (tmp_path / f"{name}.log.jsonl").read_text().splitlines()
        losses += [json.loads(line)["loss"] for line in lines if '"loss"' in line]

    model = CrossEncoder.load(str(bert), seed=3).model.double().eval()
    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokens = 0
    total = torch.zeros((), dtype=torch.float64)
    numbers = set()
    for item in seen[0]:
        ((qid, query),) = item["topics"].items()
        assert item["positive"] in qrels[qid]
        assert not {*item["hard"]} & {*qrels[qid]}
        scores = []
        for docid in [item["positive"], *item["hard"]]:
            pair = tokenizer(query, corpus[docid], return_tensors="pt")
            tokens += pair["input_ids"].numel()
            scores.append(model(**pair).logits[0, 0])
        scores = torch.stack(scores)
        total = total - (scores[0].exp() / scores.exp().sum()).log()
        numbers.add(len(scores))
    assert numbers == {3, 4} or numbers == {2, 4}
    loss = total / 24
    loss.backward()
    assert losses == pytest.approx([float(loss.detach())] * 3, rel=1e-5)
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for found in gradients:
        assert found.keys() == expected.keys()
        ours, theirs = (
            torch.cat([table[name].flatten().double() for name in expected])
            for table in (found, expected)
        )
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_training_is_the_same_every_time_and_goes_by_the_seed(bert, files, tmp_path):
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        commands.train("cross", cross_argv(files, bert, tmp_path / name, seed=seed))
    one, two, other = (
        (tmp_path / name / "model.safetensors").read_bytes()
        for name in ("one", "two", "other")
    )
    assert one == two != other
    # Pairs as long as the model takes, whatever its tokenizer says of queries.
    assert CrossEncoder.load(str(tmp_path / "one")).length == 64
    # Another head, before any step.
    heads = [
        CrossEncoder.load(str(bert), seed=n).model.classifier.weight for n in (1, 2)
    ]
    assert not torch.equal(*heads)


def test_a_cross_encoder_goes_on_being_trained(one_label, two_labels, files, tmp_path):
    """Of two labels too, and it is not taken for a new head."""
    for source in (one_label, two_labels):
        out = tmp_path / source.name
        commands.train("cross", cross_argv(files, source, out, learning_rate=1e-9))
        old = CrossEncoder.load(str(source)).model.classifier.weight
        new = CrossEncoder.load(str(out)).model.classifier.weight
        assert torch.allclose(old, new, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_strategy": "steps"}, "not evaluated while it trains"),
        ({"eval_on_start": True}, "not evaluated while it trains"),
        ({"metric_for_best_model": "RR@10"}, "no checkpoint is the best"),
        ({"eval_topics": "x"}, "unknown setting 'eval_topics'"),
        ({"scale": 20}, "unknown setting 'scale'"),
        ({"encode": "x"}, "unknown setting 'encode'; did you mean 'encoder'"),
    ],
)
def test_settings_that_it_does_not_have(changes, message, bert, files, tmp_path):
    with pytest.raises(DenseHNError, match=message):
        commands.train("cross", cross_argv(files, bert, tmp_path / "out", **changes))


def test_broken_input_is_refused_before_the_training(
    bert, files, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(CrossEncoder, "load", lambda *_, **__: pytest.fail("loaded"))
    other = tmp_path / "other"
    shutil.copytree(bert, other)
    with pytest.raises(DenseHNError, match="other: holds other things"):
        commands.train("cross", cross_argv(files, bert, other))
    trec.write_run(files["run"], {**run, "q3": {"nowhere": 1.0}}, "x")
    with pytest.raises(DenseHNError, match="docid 'nowhere'"):
        commands.train("cross", cross_argv(files, bert, tmp_path / "out"))
    trec.write_run(files["run"], {"elsewhere": run["q1"]}, "x")
    with pytest.raises(DenseHNError, match="query 'q0' has no negatives"):
        commands.train("cross", cross_argv(files, bert, tmp_path / "out"))
    files["qrels"].write_text("q0 0 red-lamp 1\n")
    with pytest.raises(DenseHNError, match="has no relevant document"):
        commands.train("cross", cross_argv(files, bert, tmp_path / "out"))


def test_topics_without_negatives_are_left_out_and_counted(
    bert, files, run, tmp_path, monkeypatch, caplog
):
    trec.write_run(files["run"], {q: run[q] for q in list(run)[1:]}, "x")
    seen, collate = [], cross.CrossCollator.__call__
    monkeypatch.setattr(
        cross.CrossCollator,
        "__call__",
        lambda self, items: seen.extend(items) or collate(self, items),
    )
    commands.train("cross", cross_argv(files, bert, tmp_path / "out"))
    asked = {qid for item in seen for qid in item["topics"]}
    assert asked == run.keys() - {"q0"}
    assert "1 of 24 queries have no negatives in" in caplog.text


@pytest.mark.parametrize("loss", ["margin-mse", "kl"])
def test_its_scores_teach_an_encoder(loss, bert, files, topics, qrels, tmp_path):
    """End to end, from the run of training topics to a distilled encoder."""
    commands.train("cross", cross_argv(files, bert, tmp_path / "cross"))
    cross, teacher = CrossEncoder.load(str(tmp_path / "cross")), tmp_path / "teacher"
    call(cross, files, teacher, [10], qrels_path=files["qrels"])
    told = trec.read_run(teacher)
    assert all({*qrels[qid]} <= {*told[qid]} for qid in topics)
    argv = cross_argv(files, bert, tmp_path / "star", distil=loss, teacher=teacher)
    commands.train("star", argv)
    assert (tmp_path / "star" / "model.safetensors").is_file()


def test_a_folder_of_ours_is_replaced_and_says_what_wrote_it(one_label, tmp_path):
    cross = CrossEncoder.load(str(one_label))
    for _ in range(2):
        cross.save(tmp_path / "out")
    assert "command" in json.loads((tmp_path / "out" / cross_encoder.FILE).read_text())
    assert CrossEncoder.load(str(tmp_path / "out")).digest() == cross.digest()


def recipe_of(tmp_path, split_folder, bert, section):
    path = tmp_path / "small.yaml"
    path.write_text(
        f"collection: {{folder: {split_folder}}}\nencoder: {{source: {bert}}}\n"
        f"evaluate: {{hits: 20, measures: [RR@10]}}\nrerank: {section}\n"
    )
    return recipe.read(str(path))


def test_a_recipe_has_rows_of_reranked_systems(
    one_label, bert, split_folder, run, topics, corpus, tmp_path, monkeypatch
):
    """The stages `rerank` and `evaluate`, on runs that stand in for the searches."""
    section = f"{{model: {one_label}, depths: [1, 4]}}"
    read = recipe_of(tmp_path, split_folder, bert, section)
    pipeline = Pipeline(read, tmp_path)
    test = list(topics)[18:]
    for name, part in (("bm25", 0), ("base", 7)):
        hits = {q: dict(list(run[q].items())[part:]) for q in test}
        trec.write_run(pipeline.hits(name, "test"), hits, name)
    asked = []
    batch = CrossEncoder.batch
    monkeypatch.setattr(
        CrossEncoder,
        "batch",
        lambda self, pairs: asked.extend(pairs) or batch(self, pairs),
    )
    stages = pipeline.ledger.stages
    assert stages["rerank"].after == [
        "collection",
        "topics.test",
        "bm25.test",
        "base.test",
    ]
    assert "rerank" in stages["evaluate"].after
    stages["rerank"].work()
    assert len(asked) == len(set(asked)) == 6 * 8
    assert all(path.is_file() for path in stages["rerank"].outputs)
    stages["evaluate"].work()
    rows = [line.split()[0] for line in pipeline.table.read_text().splitlines()[1:-1]]
    assert rows == ["BM25", "untrained", "bm25@1", "bm25@4", "base@1", "base@4"]

    # The report opens the rows' runs by their names.
    shown = comparison.compare(pipeline, 2)
    assert [*shown.values] == rows

    single = tmp_path / "single"
    where = pipeline.hits("base", "test"), pipeline.topics("test"), pipeline.corpus
    rerank.rerank(CrossEncoder.load(str(one_label)), *where, single, [4], tag="base@4")
    assert single.read_bytes() == pipeline.hits("base@4", "test").read_bytes()

    # It comes back as it was, and other weights are another stage.
    (tmp_path / "again.yaml").write_text(recipe.as_yaml(read))
    assert recipe.read(str(tmp_path / "again.yaml")).rerank == read.rerank
    other = changed(tmp_path / "other", one_label, hidden_act="relu")
    changes = (
        [f"rerank.model={other}"],
        ["rerank.depths=[4]"],
        ["rerank.systems=[bm25]"],
    )
    for change in changes:
        new = Pipeline(recipe.read(str(tmp_path / "small.yaml"), change), tmp_path)
        assert new.ledger.stages["rerank"].key != stages["rerank"].key
        assert new.ledger.stages["bm25.test"].key == stages["bm25.test"].key


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{systems: [bm25]}", "rerank: model is missing"),
        ("{model: BERT}", "is no cross-encoder"),
        ("{model: ./nowhere}", "no such encoder folder"),
        ("{model: CROSS, systems: [bn25]}", "rerank: unknown .* 'bn25'; did you"),
        ("{model: CROSS, depths: [0]}", "numbers from 1, each once"),
        ("{model: CROSS, depth: [5]}", "unknown setting 'depth'; did you mean"),
    ],
)
def test_a_section_that_cannot_be_is_refused(
    section, message, one_label, bert, split_folder, tmp_path
):
    section = section.replace("BERT", str(bert)).replace("CROSS", str(one_label))
    with pytest.raises(DenseHNError, match=message):
        Pipeline(recipe_of(tmp_path, split_folder, bert, section), tmp_path)


def test_without_the_section_a_recipe_is_as_it_was(bert, split_folder, tmp_path):
    read = recipe_of(tmp_path, split_folder, bert, "{}")
    assert "rerank" not in Pipeline(read, tmp_path).ledger.stages
    assert "rerank" not in recipe.as_yaml(read)
