"""Trainings that were killed end as they would have ended, and take up nobody else's."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import soak

from dense_hn import DenseHNError
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.train import adore, arguments, checkpoints, commands, cross, joint
from dense_hn.train.hard_negatives import Refresh

# Several epochs of six steps; a checkpoint after every step.
SETTINGS = {
    "per_device_train_batch_size": 4,
    "max_steps": 15,
    "learning_rate": "1e-3",
    "logging_steps": 1,
    "save_minutes": "1e-9",
    "random_per_query": 1,
    "drop_relative_margin": "0.01",
    "disable_tqdm": True,
    "use_cpu": True,
}
TRAINERS = {
    "star": joint.JointTrainer,
    "adore": adore.AdoreTrainer,
    "cross": cross.CrossTrainer,
}
# What a training that goes on cannot know any more.
FORGOTTEN = ("seconds/", "train_", "hits_as_before", "padding_share")


class Stopped(Exception):
    """In the place of a kill."""


@pytest.fixture
def argv(bert, files, corpus, tmp_path):
    """The arguments of a stage that writes a folder, with changes."""
    encode_corpus(DenseEncoder.load(str(bert)), corpus, tmp_path / "vectors")

    def of(stage, name, **changes):
        named = {"encoder": bert, "topics": files["topics"], "qrels": files["qrels"]}
        named |= {"output_dir": tmp_path / name, "negatives": files["run"]} | SETTINGS
        if stage == "adore":
            named |= {"vectors": tmp_path / "vectors", "adore_hits": 10}
        else:
            named |= {"corpus": files["corpus"], "dropout": 0.1}
        return arguments.argv_of(named | changes)

    return of


def stop_at(monkeypatch, stage, step):
    """Let the batch of this step raise Stopped."""
    kind = TRAINERS[stage]
    compute = kind.compute_loss

    def stopping(self, *args, **kwargs):
        if self.state.global_step == step:
            raise Stopped
        return compute(self, *args, **kwargs)

    monkeypatch.setattr(kind, "compute_loss", stopping)


def stopped(*_, **__):
    """In the place of what would be done next."""
    raise Stopped


def made(folder, name):
    """Weights, the log that does not tell of times, and what was dropped."""
    lines = (folder / f"{name}.log.jsonl").read_text().splitlines()
    log = [
        {k: v for k, v in json.loads(line).items() if not k.startswith(FORGOTTEN)}
        for line in lines
    ]
    weights = (folder / name / "model.safetensors").read_bytes()
    return weights, log, (folder / f"{name}.dropped.jsonl").read_bytes()


@pytest.mark.parametrize("stage", TRAINERS)
def test_a_stopped_training_ends_as_if_it_had_not_been(
    stage, argv, tmp_path, monkeypatch
):
    """Stopped in the first epoch, at the start of the third and in it."""
    commands.train(stage, argv(stage, "whole"))
    for step in (4, 12, 14):
        with monkeypatch.context() as patch:
            stop_at(patch, stage, step)
            with pytest.raises(Stopped):
                commands.train(stage, argv(stage, "out"))
        assert not (tmp_path / "out").exists()
        kept = [path.name for path in tmp_path.glob(".out.training/checkpoint-*")]
        assert kept == [f"checkpoint-{step}"]
    began = []
    begin = TRAINERS[stage].compute_loss

    def watched(self, *args, **kwargs):
        began.append(self.state.global_step)
        return begin(self, *args, **kwargs)

    monkeypatch.setattr(TRAINERS[stage], "compute_loss", watched)
    commands.train(stage, argv(stage, "out"))
    assert began == [14]
    assert made(tmp_path, "out") == made(tmp_path, "whole")
    assert not list(tmp_path.glob(".*"))


def test_a_training_that_ended_and_was_not_saved(argv, tmp_path, monkeypatch):
    """It has no step left, in the middle of an epoch."""
    commands.train("star", argv("star", "whole", lr_scheduler_type="constant"))
    with monkeypatch.context() as patch:
        patch.setattr(DenseEncoder, "save", stopped)
        with pytest.raises(Stopped):
            commands.train("star", argv("star", "out", lr_scheduler_type="constant"))
    stop_at(monkeypatch, "star", 15)
    commands.train("star", argv("star", "out", lr_scheduler_type="constant"))
    assert made(tmp_path, "out") == made(tmp_path, "whole")


@pytest.mark.parametrize("step", [1, 3])
def test_early_stopping_goes_on_counting(step, argv, files, tmp_path, monkeypatch):
    """Weights that do not change are never better: three evaluations, and the end."""
    changes = {"eval_topics": files["topics"], "eval_qrels": files["qrels"]}
    changes |= {"eval_strategy": "steps", "eval_steps": 1, "early_stopping": 3}
    changes |= {"learning_rate": 0}
    commands.train("star", argv("star", "whole", **changes))
    with monkeypatch.context() as patch:
        stop_at(patch, "star", step)
        with pytest.raises(Stopped):
            commands.train("star", argv("star", "out", **changes))
    commands.train("star", argv("star", "out", **changes))
    assert made(tmp_path, "out") == made(tmp_path, "whole")
    assert max(line["step"] for line in made(tmp_path, "out")[1]) == 4


def test_mined_negatives_come_along_from_elsewhere(argv, tmp_path, monkeypatch):
    """Stopped twice: after another training's refresh, and before the next one."""
    changes = {"refresh_steps": 6, "negatives_depth": 6, "drop_relative_margin": -100}
    commands.train("star", argv("star", "whole", **changes))
    with monkeypatch.context() as patch:
        stop_at(patch, "star", 8)
        with pytest.raises(Stopped):
            commands.train("star", argv("star", "first", **changes))
    (tmp_path / ".first.training").rename(tmp_path / "elsewhere")
    changes["resume_from_checkpoint"] = tmp_path / "elsewhere" / "checkpoint-8"
    with monkeypatch.context() as patch:
        stop_at(patch, "star", 10)
        with pytest.raises(Stopped):
            commands.train("star", argv("star", "out", **changes))
    commands.train("star", argv("star", "out", **changes))
    assert made(tmp_path, "out") == made(tmp_path, "whole")


@pytest.mark.parametrize("every", ["refresh_epochs", "refresh_steps"])
def test_stopped_while_negatives_are_mined_anew(every, argv, tmp_path, monkeypatch):
    """At the end of an epoch a checkpoint is older than what is mined there."""
    changes = {every: 1 if every == "refresh_epochs" else 6, "negatives_depth": 6}
    # Or nothing of its own hits would be left.
    changes |= {"drop_relative_margin": -100}
    commands.train("star", argv("star", "whole", **changes))
    for mined in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(Refresh, "_mine", stopped)
            with pytest.raises(Stopped):
                commands.train("star", argv("star", "out", **changes))
        stops = iter([False, True])
        mine = Refresh._mine

        def once(self, *args, mine=mine, stops=stops):
            if next(stops):
                raise Stopped
            mine(self, *args)

        if mined == 1:
            with monkeypatch.context() as patch:
                patch.setattr(Refresh, "_mine", once)
                with pytest.raises(Stopped):
                    commands.train("star", argv("star", "out", **changes))
    commands.train("star", argv("star", "out", **changes))
    assert made(tmp_path, "out") == made(tmp_path, "whole")


def test_a_stopping_that_was_decided_stands(argv, files, tmp_path, monkeypatch):
    """The last evaluation was done, and the encoder not saved."""
    changes = {"eval_topics": files["topics"], "eval_qrels": files["qrels"]}
    changes |= {"eval_strategy": "steps", "eval_steps": 1, "early_stopping": 3}
    changes |= {"learning_rate": 0}
    commands.train("star", argv("star", "whole", **changes))
    with monkeypatch.context() as patch:
        patch.setattr(DenseEncoder, "save", stopped)
        with pytest.raises(Stopped):
            commands.train("star", argv("star", "out", **changes))
    stop_at(monkeypatch, "star", 4)
    commands.train("star", argv("star", "out", **changes))
    assert made(tmp_path, "out") == made(tmp_path, "whole")


def test_a_checkpoint_is_the_same_however_it_is_spelled(argv, tmp_path, monkeypatch):
    """And what is none stops nobody's training for good."""
    commands.train("star", argv("star", "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, "star", 4)
        with pytest.raises(Stopped):
            commands.train("star", argv("star", "out"))
    shutil.copytree(tmp_path / ".out.training", tmp_path / "elsewhere")
    for name, wrong in (("out", ".out.training/checkpoint-9"), ("new", "true")):
        changes = {"resume_from_checkpoint": tmp_path / wrong}
        with pytest.raises(DenseHNError, match=f"{wrong} is no checkpoint"):
            commands.train("star", argv("star", name, **changes))
    monkeypatch.chdir(tmp_path)
    spelled = f"../{tmp_path.name}/.out.training/checkpoint-4"
    with monkeypatch.context() as patch:
        stop_at(patch, "star", 7)
        with pytest.raises(Stopped):
            commands.train("star", argv("star", "out", resume_from_checkpoint=spelled))
    # From one elsewhere, the same command goes on where it was itself.
    other = {"resume_from_checkpoint": tmp_path / "elsewhere" / "checkpoint-4"}
    stop_at(monkeypatch, "star", 6)
    commands.train("star", argv("star", "out", **other))
    assert made(tmp_path, "out")[0] == made(tmp_path, "whole")[0]


def test_a_corpus_in_folders_of_folders_is_known(files, tmp_path):
    part = tmp_path / "corpus" / "part"
    part.mkdir(parents=True)
    shutil.copy(files["corpus"], part / "docs.jsonl")
    before = checkpoints._known(str(tmp_path / "corpus"))
    (part / "docs.jsonl").write_text("{}\n")
    assert checkpoints._known(str(tmp_path / "corpus")) != before


def test_what_another_training_left_is_cleared(argv, tmp_path):
    folder = tmp_path / ".out.training"
    folder.mkdir()
    (folder / "negatives-3.txt").write_text("q0 Q0 d 1 1 x\n")
    (folder / "checkpoint-3").mkdir()
    checkpoints.start(folder, {})
    assert [path.name for path in folder.iterdir()] == [checkpoints.MADE_FROM]
    with pytest.raises(DenseHNError, match="save_only_model"):
        commands.parse("star", argv("star", "out", save_only_model=True))


def test_a_killed_process(argv, tmp_path):
    commands.train("star", argv("star", "whole"))
    command = [sys.executable, "-m", "dense_hn.train", "star", *argv("star", "out")]
    found = ".out.training/checkpoint-*/" + checkpoints.WHOLE
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not list(tmp_path.glob(found)) and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    commands.train("star", argv("star", "out"))
    assert made(tmp_path, "out") == made(tmp_path, "whole")


def test_a_checkpoint_that_is_not_whole_is_passed_over(argv, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, "star", 4)
        with pytest.raises(Stopped):
            commands.train("star", argv("star", "out", save_total_limit=2))
    folder = tmp_path / ".out.training"
    (folder / "checkpoint-4" / checkpoints.WHOLE).unlink()
    (folder / "checkpoint-4" / "model.safetensors").write_bytes(b"half")
    facts = json.loads((folder / checkpoints.MADE_FROM).read_text())
    assert checkpoints.last(folder, facts) == str(folder / "checkpoint-3")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": "2e-3"}, "another learning_rate;"),
        ({"seed": 7, "negatives_depth": 9}, "another seed, negatives_depth;"),
        ({"topics": "fewer"}, "another topics;"),
        ({"encoder": "other"}, "another encoder;"),
    ],
)
def test_checkpoints_of_another_training_are_refused(
    changes, named, argv, files, bert, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_at(patch, "star", 2)
        with pytest.raises(Stopped):
            commands.train("star", argv("star", "out"))
    lines = files["topics"].read_text().splitlines(keepends=True)
    (tmp_path / "fewer").write_text("".join(lines[:-1]))
    shutil.copytree(bert, tmp_path / "other")
    settings = json.loads((tmp_path / "other" / "dense_hn.json").read_text())
    settings["scale"] = 10
    (tmp_path / "other" / "dense_hn.json").write_text(json.dumps(settings))
    changed = {
        name: tmp_path / value if name in ("topics", "encoder") else value
        for name, value in changes.items()
    }
    with pytest.raises(DenseHNError, match=named):
        commands.train("star", argv("star", "out", **changed))
    # A copy of a file is the file; how often a log is written does not matter.
    shutil.copy(files["topics"], tmp_path / "copy")
    same = {"topics": tmp_path / "copy", "logging_steps": 5}
    commands.train("star", argv("star", "out", **same))


def test_no_checkpoints_where_none_are_wanted(argv, tmp_path, monkeypatch):
    stop_at(monkeypatch, "star", 4)
    with pytest.raises(Stopped):
        commands.train("star", argv("star", "out", save_minutes=0))
    assert not list(tmp_path.glob(".out.training/checkpoint-*"))
    with pytest.raises(DenseHNError, match="save_minutes is -1"):
        commands.parse("star", argv("star", "out", save_minutes=-1))


def test_a_recipe_that_is_killed_again_and_again(
    small_recipe, train_command, tmp_path, monkeypatch
):
    """A small version of soak.py."""
    monkeypatch.setattr(soak, "COMMAND", train_command)
    assert soak.soak(str(small_recipe), [], tmp_path / "soak", kills=2, seed=1) >= 1
    kept = soak.digests(tmp_path / "soak" / "whole")
    assert {"runs/small/adore.test.txt", "work/small/indexes/star/index"} <= set(kept)
    # It does notice.
    weights = tmp_path / "soak" / "whole" / "work/small/models/star/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    changed = soak.digests(tmp_path / "soak" / "whole")
    assert [name for name in kept if kept[name] != changed[name]] == [
        "work/small/models/star/model.safetensors"
    ]
