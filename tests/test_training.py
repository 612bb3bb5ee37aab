"""STAR and ADORE through the Trainer: batches, losses, determinism, refusals."""

import json
import shutil
from pathlib import Path

import pytest

from dense_hn import DenseHNError, trec
from dense_hn.encode import encode_corpus, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.mine import mine
from dense_hn.train import arguments, checkpoints, commands, joint
from dense_hn.vectors import Vectors

FAST = ["--max_steps", "6", "--per_device_train_batch_size", "8"]
FAST += ["--learning_rate", "1e-3", "--disable_tqdm", "true", "--use_cpu", "true"]


def star_argv(files, encoder, output, **changes):
    """Arguments of a short STAR training on the made collection."""
    argv = {"encoder": encoder, "corpus": files["corpus"], "topics": files["topics"]}
    argv |= {"qrels": files["qrels"], "negatives": files["run"], "output_dir": output}
    return arguments.argv_of(argv | changes) + FAST


def adore_argv(files, encoder, vectors, output, **changes):
    """Arguments of a short ADORE training on the made collection."""
    argv = {"encoder": encoder, "vectors": vectors, "topics": files["topics"]}
    argv |= {"qrels": files["qrels"], "output_dir": output, "adore_hits": 10}
    return arguments.argv_of(argv | changes) + FAST


@pytest.fixture
def vectors(bert, tmp_path, corpus):
    """Vectors folder of the made corpus."""
    encoder = DenseEncoder.load(str(bert))
    encode_corpus(encoder, corpus, tmp_path / "vectors")
    return tmp_path / "vectors"


def test_star_trains_and_is_the_same_every_time(bert, files, tmp_path):
    for name in ("one", "two"):
        commands.train("star", star_argv(files, bert, tmp_path / name))
    weights = (tmp_path / "one" / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "two" / "model.safetensors").read_bytes()
    assert weights != (bert / "model.safetensors").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} >= {"one", "two"}
    assert not list(tmp_path.glob(".*"))


def test_a_training_says_what_it_was_made_from(bert, files, tmp_path):
    commands.train("star", star_argv(files, bert, tmp_path / "out", alpha=0.5))
    told = json.loads((tmp_path / "out.made_from.json").read_text())
    made_from = told["made_from"]
    assert (made_from["alpha"], made_from["max_steps"]) == (0.5, 6)
    other = tmp_path / "other.tsv"
    other.write_text(Path(files["topics"]).read_text().replace("where", "Where"))
    for topics, same in ((files["topics"], True), (other, False)):
        argv = star_argv(files, bert, tmp_path / "out", topics=topics)
        found = checkpoints.made_from(*commands.parse("star", argv))
        assert (found["topics"] == made_from["topics"]) == same


def test_runs_of_another_corpus_are_told_of(bert, files, vectors, tmp_path, caplog):
    """By the record that `mine` leaves beside a run, for both kinds of stages."""
    run, topics = tmp_path / "mined.txt", files["topics"]
    encoder = DenseEncoder.load(str(bert))
    mine(encoder, Vectors.load(vectors), topics, 20, run, "x", files["qrels"])
    record = tmp_path / "mined.txt.json"
    for corpus, told in ((None, False), ("0" * 64, True)):
        if corpus:
            facts = json.loads(record.read_text())
            facts["made_from"]["corpus"] = corpus
            record.write_text(json.dumps(facts))
        for stage, argv in (
            ("star", star_argv(files, bert, tmp_path / "out", negatives=run)),
            (
                "adore",
                adore_argv(files, bert, vectors, tmp_path / "out", negatives=run),
            ),
        ):
            caplog.clear()
            commands.train(stage, argv)
            assert ("mined.txt: made from another corpus" in caplog.text) == told
    # Another program wrote over the run, or beside it.
    run.write_text(run.read_text().replace(" x\n", " y\n"))
    for text in (record.read_text(), "[1]"):
        record.write_text(text)
        caplog.clear()
        commands.train("star", star_argv(files, bert, tmp_path / "out", negatives=run))
        assert "another corpus" not in caplog.text


def test_cosines_without_a_scale_are_told_of(bert, files, tmp_path, caplog):
    cosines = tmp_path / "cosines"
    DenseEncoder.load(str(bert), scale=1.0).save(cosines)
    for scale, told in ((None, True), (20, False)):
        given = {} if scale is None else {"scale": scale}
        caplog.clear()
        commands.train("star", star_argv(files, cosines, tmp_path / "out", **given))
        assert ("scores are cosines times 1," in caplog.text) == told


def test_every_epoch_draws_other_negatives(bert, files, tmp_path, monkeypatch):
    """24 topics in batches of 8: three steps an epoch, the epoch told to the dataset."""
    seen = []
    collate = joint.JointCollator.__call__
    monkeypatch.setattr(
        joint.JointCollator,
        "__call__",
        lambda self, items: seen.extend(items) or collate(self, items),
    )
    commands.train("star", star_argv(files, bert, tmp_path / "out"))
    assert len(seen) == 48
    first, second = (
        {qid: item["hard"] for item in half for qid in item["topics"]}
        for half in (seen[:24], seen[24:])
    )
    assert first.keys() == second.keys()
    assert first != second


def test_data_seed_orders_the_topics(bert, files, tmp_path, monkeypatch):
    """And changes nothing else: each topic has the negatives that it had."""
    collate = joint.JointCollator.__call__
    orders = []
    for number, more in enumerate(([], [], ["--data_seed", "1042"])):
        seen = []
        monkeypatch.setattr(
            joint.JointCollator,
            "__call__",
            lambda self, items, seen=seen: seen.extend(items) or collate(self, items),
        )
        argv = star_argv(files, bert, tmp_path / str(number))
        commands.train("star", [*argv, *more])
        epoch = seen[:24]
        orders.append({qid: item["hard"] for item in epoch for qid in item["topics"]})
    one, same, other = orders
    assert list(one.items()) == list(same.items())
    assert one == other and list(one) != list(other)


def test_adore_trains_the_query_side_only(
    bert, vectors, files, tmp_path, topics, qrels
):
    before = {p.name: p.read_bytes() for p in vectors.iterdir()}
    argv = adore_argv(files, bert, vectors, tmp_path / "one", max_steps=60)
    commands.train("adore", [*argv, "--max_steps", "60"])
    assert before == {p.name: p.read_bytes() for p in vectors.iterdir()}
    made_from = Vectors.load(vectors)
    trained = DenseEncoder.load(str(tmp_path / "one"))
    assert trained.settings.passage_encoder == made_from.encoder
    made_from.require_made_by(trained, "the trained encoder")

    def rank_of_positives(encoder):
        queries = encode_texts(encoder, list(topics.values()), "query")
        scores = queries @ made_from.matrix.T
        own = [made_from.docids.index(next(iter(qrels[qid]))) for qid in topics]
        return float((scores >= scores[range(len(own)), own][:, None]).sum())

    assert rank_of_positives(trained) < rank_of_positives(DenseEncoder.load(str(bert)))


@pytest.mark.parametrize("stage", ["star", "adore"])
def test_a_level_is_qrels_without_lower_grades(
    stage, bert, vectors, files, tmp_path, corpus, qrels
):
    """As if somebody had written 0 for them; each topic has one of grade 1."""
    graded, by_hand = tmp_path / "graded", tmp_path / "by_hand"
    docids = list(corpus)
    lines = [
        (f"{qid} 0 {docid} 2\n", f"{qid} 0 {other} ")
        for n, (qid, judged) in enumerate(qrels.items())
        for docid, other in [(next(iter(judged)), docids[2 * n + 1])]
    ]
    graded.write_text("".join(f"{high}{low}1\n" for high, low in lines))
    by_hand.write_text("".join(f"{high}{low}0\n" for high, low in lines))

    def weights(name, **changes):
        out = tmp_path / name
        argv = star_argv(files, bert, out, **changes)
        if stage == "adore":
            argv = adore_argv(files, bert, vectors, out, **changes)
        commands.train(stage, argv)
        return (out / "model.safetensors").read_bytes()

    of_level = weights("level", qrels=graded, relevance_level=2)
    assert of_level == weights("zeros", qrels=by_hand)
    assert of_level != weights("all", qrels=graded)
    with pytest.raises(DenseHNError, match="query 'q0' has no relevant document in"):
        weights("none", qrels=graded, relevance_level=3)


def test_adore_refuses_vectors_of_another_encoder(bert, vectors, files, tmp_path):
    commands.train("star", star_argv(files, bert, tmp_path / "star"))
    argv = adore_argv(files, tmp_path / "star", vectors, tmp_path / "adore")
    with pytest.raises(DenseHNError, match="made by another encoder"):
        commands.train("adore", argv)
    assert not (tmp_path / "adore").exists()


def append(path, line):
    path.write_text(path.read_text() + line + "\n")


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        (
            "qrels",
            "q3 0 nowhere 1",
            "qrels.txt: docid 'nowhere' (query 'q3') is not in",
        ),
        ("run", "q3 Q0 nowhere 99 0.1 t", "run.txt: docid 'nowhere' (query 'q3') is"),
        ("run", "q3 Q0 red-lamp 99 0.1", "run.txt:481: expected 6 columns"),
        ("topics", "new\twhere is it", "query 'new' has no relevant document in"),
        ("corpus", "", "corpus.jsonl:49: empty line"),
        ("corpus", "{broken", "corpus.jsonl:49: broken JSON"),
        (
            "corpus",
            '{"id": "red-lamp", "contents": "x"}',
            ":49: docid 'red-lamp' occurs",
        ),
    ],
)
def test_bad_input_is_refused_before_a_model_is_loaded(
    files, file, line, message, tmp_path
):
    append(files[file], line)
    argv = star_argv(files, tmp_path / "no model here", tmp_path / "out")
    with pytest.raises(DenseHNError) as error:
        commands.train("star", argv)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_topic_without_negatives_is_refused(files, qrels, run, tmp_path):
    short = dict(run)
    short["q4"] = dict.fromkeys(qrels["q4"], 1.0)
    trec.write_run(files["run"], short, "t")
    model = tmp_path / "no model here"
    argv = star_argv(files, model, tmp_path / "out", in_batch=False)
    with pytest.raises(DenseHNError, match="query 'q4' has no negatives in"):
        commands.train("star", argv)


def test_a_topic_without_hard_negatives_is_told_of(files, bert, run, tmp_path, caplog):
    """Other documents of the batch train it; that no topic has any is a mistake."""
    short = {qid: hits for qid, hits in run.items() if qid != "q4"}
    trec.write_run(files["run"], short, "t")
    commands.train("star", star_argv(files, bert, tmp_path / "out"))
    assert "1 of 24 queries have no negatives in" in caplog.text
    trec.write_run(files["run"], {"dev1": run["q1"]}, "t")
    argv = star_argv(files, tmp_path / "no model here", tmp_path / "out")
    with pytest.raises(DenseHNError, match="24 of 24 have none; these files are not"):
        commands.train("star", argv)


def test_an_output_folder_with_other_things_is_refused_before_training(
    bert, files, tmp_path
):
    argv = star_argv(files, tmp_path / "no model here", tmp_path)
    with pytest.raises(DenseHNError, match="holds other things"):
        commands.train("star", argv)
    assert files["corpus"].exists()


def test_nothing_stands_under_the_final_name_while_training(
    bert, files, tmp_path, monkeypatch
):
    def stop(self, *_, **__):
        assert not (tmp_path / "out").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(joint.JointTrainer, "compute_loss", stop)
    with pytest.raises(KeyboardInterrupt):
        commands.train("star", star_argv(files, bert, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_training_resumes_from_a_checkpoint(bert, files, tmp_path):
    """Six steps at once, and four, then two more: the same weights."""
    keep = ["--save_strategy", "steps", "--save_steps", "4"]
    argv = [*star_argv(files, bert, tmp_path / "out"), *keep]
    saved = tmp_path / "kept"
    save = joint.JointTrainer._save_checkpoint

    def save_and_keep(self, *arguments):
        save(self, *arguments)
        checkpoint = Path(self.args.output_dir) / "checkpoint-4"
        if checkpoint.exists() and not saved.exists():
            shutil.copytree(checkpoint, saved)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint.JointTrainer, "_save_checkpoint", save_and_keep)
        commands.train("star", argv)
    argv = star_argv(files, bert, tmp_path / "resumed")
    commands.train("star", [*argv, "--resume_from_checkpoint", str(saved)])
    whole = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert (tmp_path / "resumed" / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # A query of the batch, all alone.
        ({"negatives": []}, "no in-batch negatives"),
        ({"negatives": [], "in_batch": False}, "there is no source of negatives"),
        ({"drop_max_score": -1, "in_batch": False}, "'q0' has no negatives in"),
        ({"teacher": "other", "distil": "kl"}, "docid 'elsewhere' .* is not in"),
    ],
)
def test_a_training_without_any_pair_is_refused(files, change, message, tmp_path):
    """Each would have trained with a loss of exactly zero."""
    lines = [f"q{n} Q0 elsewhere 1 1.0 t\n" for n in range(24)]
    (tmp_path / "other").write_text("".join(lines))
    if "teacher" in change:
        change = change | {"teacher": tmp_path / "other"}
    argv = star_argv(files, tmp_path / "no model here", tmp_path / "out", **change)
    argv += ["--per_device_train_batch_size", "1"]
    with pytest.raises(DenseHNError, match=message):
        commands.train("warmup", argv)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"query_length": 0}, "start at 3"),
        ({"passage_length": 65}, "takes 64 tokens at most, 65 asked for"),
    ],
)
def test_lengths_that_the_model_has_no_room_for(
    files, bert, lengths, message, tmp_path
):
    with pytest.raises(DenseHNError, match=message):
        commands.train("star", star_argv(files, bert, tmp_path / "out", **lengths))


@pytest.mark.parametrize("stage", commands.STAGES)
def test_help_names_the_losses(stage, capsys):
    with pytest.raises(SystemExit):
        commands.parse(stage, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "softplus(s(n) − s(p))" in text
    assert "at most 95% of it" in text
    assert "--gradient_cache" in text


@pytest.mark.parametrize("weight", [1, 0.5])
def test_distillation_leaves_out_what_the_teacher_did_not_score(
    weight, files, bert, run, qrels, tmp_path, caplog
):
    """Beside the stage's own loss, such topics have that alone."""
    told = {q: dict.fromkeys([*hits, *qrels[q]], 1.0) for q, hits in run.items()}
    del told["q3"]
    told["q5"] = {d: s for d, s in told["q5"].items() if d not in qrels["q5"]}
    trec.write_run(tmp_path / "teacher", told, "t")
    changes = {"distil": "kl", "distil_weight": weight}
    argv = star_argv(files, bert, tmp_path / "out", **changes)
    seen = []
    collate = joint.JointCollator.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            joint.JointCollator,
            "__call__",
            lambda self, items: seen.extend(items) or collate(self, items),
        )
        commands.train("star", [*argv, "--teacher", str(tmp_path / "teacher")])
    left_out = {"q3", "q5"} if weight == 1 else set()
    assert {q for item in seen for q in item["topics"]} == run.keys() - left_out
    assert "1 of 24 queries have no hit in" in caplog.text
    said = "2 of 24 queries have no relevant document with a score"
    assert (said in caplog.text) == bool(left_out)


def test_workers_that_outlive_an_epoch_are_refused(files):
    argv = star_argv(files, "x", "out", dataloader_persistent_workers=True)
    with pytest.raises(DenseHNError, match="first epoch's negatives"):
        commands.parse("star", [*argv, "--dataloader_num_workers", "1"])


def test_adore_refuses_fewer_hits_than_positives(bert, vectors, files, tmp_path):
    argv = adore_argv(files, "no model here", vectors, tmp_path / "o", adore_hits=2)
    with pytest.raises(DenseHNError, match="query 'q0' has 2 relevant documents"):
        commands.train("adore", argv)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"star_loss": "triplet"}, "invalid choice: 'triplet'"),
        ({"negatives_depth": 0}, "negatives_skip is 0 and negatives_depth 0"),
        ({"negatives_per_query": [1, 1]}, "for the 1 runs together, or one for each"),
        ({"random_per_query": -1}, "random_per_query is -1"),
        ({"alpha": -1}, "alpha is -1.0"),
        ({"alpha": 2, "star_loss": "pooled"}, "alpha is of weighted"),
        ({"teacher_scale": 2}, "teacher_scale is of distil"),
        ({"distil_weight": 0.5}, "distil_weight is of distil"),
        (
            {"distil": "kl", "teacher": "run", "distil_weight": 0},
            "distil_weight is 0.0",
        ),
        (
            {"distil": "kl", "teacher": "run", "teacher_scale": -1},
            "teacher_scale is -1.0; it is a number above 0",
        ),
        ({"relevance_level": 0}, "relevance_level is 0"),
        ({"scale": "inf"}, "scale is inf; it must be above 0"),
        ({"neftune_noise_alpha": 5}, "neftune_noise_alpha 5.0 is of other trainings"),
        (
            {"train_sampling_strategy": "group_by_length"},
            "train_sampling_strategy group_by_length is of other",
        ),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor 0.1 is of other"),
        ({"scale": 0}, "scale is 0.0; it must be above 0"),
        ({"teacher": "run"}, "nothing uses its scores"),
        ({"distil": "kl"}, "kl needs a teacher's run"),
        ({"drop_max_score": "nan"}, "drop_max_score is nan"),
        ({"learning_rte": 1}, "'learning_rte'; did you mean 'learning_rate'"),
        ({"refresh_steps": 1, "refresh_epochs": 1}, "either refresh_steps or"),
        ({"refresh_steps": -1}, "refresh_steps and refresh_epochs start at 0"),
        ({"eval_share": 1.5}, "eval_share is 1.5"),
        ({"eval_measures": "MRR@3"}, "unknown measure 'MRR'; did you mean 'RR'"),
        ({"eval_measures": "MAP"}, "give it a cut, such as MAP@100"),
        ({"early_stopping": 0}, "early_stopping is 0"),
        ({"metric_for_best_model": "eval_R@100"}, "the first of --eval_measures"),
    ],
)
def test_bad_arguments_are_refused(files, change, message):
    with pytest.raises(DenseHNError, match=message):
        commands.parse("star", star_argv(files, "x", "out", **change))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_train_epochs", "0", "--max_steps", "-1"], "num_train_epochs is 0"),
        (["--per_device_train_batch_size", "0"], "batch_size is 0; it starts at 1"),
        (["--dropout", "10"], "dropout is 10.0; it is from 0 to below 1"),
        (
            ["--per_device_train_batch_size", "25", "--dataloader_drop_last", "true"],
            "a batch is of 25, there are 24",
        ),
    ],
)
def test_a_training_of_nothing_is_refused(bert, files, tmp_path, words, message):
    with pytest.raises(DenseHNError, match=message):
        commands.train("star", [*star_argv(files, bert, tmp_path / "out"), *words])


def test_a_batch_of_one_query_without_a_negative_is_told(
    bert, files, topics, tmp_path, caplog
):
    """Of 24 topics, 23 in one batch and one in the next."""
    argv = star_argv(files, bert, tmp_path / "out", in_batch=True)
    place = argv.index("--negatives")
    del argv[place : place + 2]
    for size, told in ((23, True), (8, False)):
        caplog.clear()
        more = ["--per_device_train_batch_size", str(size), "--max_steps", "1"]
        commands.train("warmup", [*argv, *more])
        assert ("the last batch of each epoch has one positive" in caplog.text) == told
