"""Outputs never take the place of what somebody else, or another command, made."""

import os
import subprocess
import sys

import pytest

from dense_hn import DenseHNError, trec
from dense_hn.collections import collection
from dense_hn.collections.collection import Collection
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.evaluate.__main__ import require_per_query
from dense_hn.export.folder import write_index
from dense_hn.files import whole_folder
from dense_hn.pretrained import require_apart


def write(folder, *holds, also=()):
    with whole_folder(folder, *holds, also=also) as partial:
        (partial / "index").write_text("new")


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (["index"], "no docid"),
        (["docid", "thesis.txt"], "no index"),
        (["index", "docid", "thesis.txt"], "thesis.txt"),
    ],
)
def test_only_a_folder_of_the_same_kind_is_replaced(tmp_path, inside, message):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in inside:
        (folder / name).write_text("old")
    with pytest.raises(DenseHNError, match=rf"holds other things \({message}\)"):
        write(folder, "index", "docid")
    assert {p.name: p.read_text() for p in folder.iterdir()} == dict.fromkeys(
        inside, "old"
    )
    (folder / "docid").write_text("old")
    (folder / "index").write_text("old")
    write(folder, "index", "docid", also=("thes*",))
    assert [p.name for p in folder.iterdir()] == ["index"]


def test_only_a_file_takes_a_files_place(tmp_path):
    """A named pipe, as devices are, which a renamed file would replace."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, message in (("pipe", "is no file"), ("folder", "is a folder")):
        with pytest.raises(DenseHNError, match=f"{name}: {message}"):
            trec.write_run(tmp_path / name, {"q": {"d": 1.0}}, "t")
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(DenseHNError, match="/dev/null: is no file"):
        trec.require_no_other("/dev/null")


def test_what_a_link_leads_to_is_written(tmp_path):
    """A folder on another disk, which stays where it is."""
    far = tmp_path / "far" / "index"
    far.mkdir(parents=True)
    (tmp_path / "near").symlink_to(far)
    write(tmp_path / "near", "index")
    assert (tmp_path / "near").is_symlink()
    assert [p.name for p in far.parent.rglob("*")] == ["index", "index"]
    (far.parent / "run").write_text("")
    (tmp_path / "run").symlink_to(far.parent / "run")
    trec.write_run(tmp_path / "run", {"q": {"d": 1.0}}, "t")
    assert (tmp_path / "run").is_symlink()
    assert (far.parent / "run").read_text() == "q Q0 d 1 1.000000 t\n"


def test_the_folder_that_one_is_in_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    for name in (".", "..", tmp_path):
        with pytest.raises(DenseHNError, match="cannot be replaced; name a new folder"):
            write(name, "index")
    write("../in/it", "index")
    monkeypatch.setattr(type(tmp_path), "is_mount", lambda path: path.name == "disk")
    with pytest.raises(DenseHNError, match="disk: cannot be replaced"):
        write(tmp_path / "disk", "index")


def test_an_old_folder_comes_back_if_the_new_one_does_not_take_its_place(
    tmp_path, monkeypatch
):
    """As when the process is interrupted between two renames."""
    write(tmp_path / "out", "index")
    (tmp_path / "out" / "index").write_text("old")
    replace = os.replace

    def interrupted(source, target):
        if str(source).endswith(".partial"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", "index")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "index").read_text() == "old"


def test_vectors_and_indexes_do_not_replace_each_other(bert, corpus, tmp_path):
    """Nor does an index that was made by Pyserini, without a manifest, go."""
    encoder = DenseEncoder.load(str(bert))
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    kinds = ("index", "docid", "manifest.json")
    with pytest.raises(DenseHNError, match=r"vectors: holds other things \(no index\)"):
        write(tmp_path / "vectors", *kinds)
    (tmp_path / "index").mkdir()
    write_index(vectors, tmp_path / "index", "flat", {})
    with pytest.raises(DenseHNError, match=r"index: holds other things \(no vectors"):
        encode_corpus(encoder, corpus, tmp_path / "index")
    (tmp_path / "index" / "manifest.json").unlink()
    with pytest.raises(DenseHNError, match=r"index: holds other things \(no manifest"):
        write(tmp_path / "index", *kinds)


def test_an_encoder_does_not_replace_the_one_it_starts_from(bert, monkeypatch):
    monkeypatch.chdir(bert.parent)
    for name in ("encoder", "./encoder", str(bert)):
        with pytest.raises(DenseHNError, match="would replace the encoder"):
            require_apart(str(bert), name)
    require_apart(str(bert), "other")


def test_a_run_does_not_replace_another_file(files, run, tmp_path):
    def never():
        raise AssertionError("searched before the file was looked at")
        yield

    for name in ("corpus", "topics", "qrels"):
        before = files[name].read_bytes()
        with pytest.raises(DenseHNError, match="is no run, and would be replaced"):
            trec.write_run(files[name], never(), "t")
        assert files[name].read_bytes() == before
    trec.write_run(files["run"], run, "other")
    with pytest.raises(DenseHNError, match="run.txt: holds other things"):
        require_per_query(str(files["run"]))


def test_a_dev_split_is_made_of_no_other_splits_topics():
    """Forty training topics, twenty of them in test in other letters."""
    train = {f"q{n}": f"query {n}" for n in range(40)}
    test = {f"t{n}": f"QUERY  {n}" for n in range(20)}
    made = Collection(
        corpus={"d": "text"},
        topics={"train": dict(train), "test": test},
        qrels={
            "train": {qid: {"d": 1} for qid in train},
            "test": {qid: {"d": 1} for qid in test},
        },
    )
    collection.prepare(made)
    left = made.topics["train"].keys() | made.topics["dev"].keys()
    assert left == {f"q{n}" for n in range(20, 40)}
    assert len(made.topics["dev"]) == 2
    assert made.left_out["training topics that are evaluated on"] == 20


def test_train_that_is_a_copy_of_test():
    topics, qrels = {"q1": "query", "q2": "other"}, {"q1": {"d": 1}, "q2": {"d": 1}}
    splits = ("train", "test")
    made = Collection(
        corpus={"d": "text"},
        topics={split: dict(topics) for split in splits},
        qrels={split: {q: dict(one) for q, one in qrels.items()} for split in splits},
    )
    with pytest.raises(DenseHNError, match="^train: every topic stands in another"):
        collection.prepare(made)


def test_a_reader_that_has_seen_enough_ends_a_command(files):
    """No traceback when the output goes to `head`."""
    command = f"{sys.executable} -m dense_hn.evaluate --format json --per_query q.tsv "
    command += f"--qrels {files['qrels']} {files['run']} | head -c 10"
    done = subprocess.run(
        ["bash", "-c", command],
        check=False,
        capture_output=True,
        text=True,
        cwd=files["run"].parent,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert done.stdout == '{\n  "topic'
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
