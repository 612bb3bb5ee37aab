"""Encoding, mining and diagnosing that are stopped go on, and end as if they had not been."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dense_hn import DenseHNError, encode, mine, search
from dense_hn.diagnose import __main__ as diagnose
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.files import parts_of
from dense_hn.vectors import DOCIDS, MANIFEST, MATRIX, Vectors

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]


@pytest.fixture
def encoder(bert):
    return DenseEncoder.load(str(bert))


@pytest.fixture
def stopping(monkeypatch):
    """Lets a function raise at one of its calls; returns the list of its calls."""

    def stop(module, name, at, error=KeyboardInterrupt):
        real, calls = getattr(module, name), []

        def called(*args, **kwargs):
            calls.append(args)
            if len(calls) == at:
                raise error
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, called)
        return calls

    return stop


def contents(folder: Path, *names: str) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


@pytest.fixture
def windows(monkeypatch):
    """Encode 48 passages in ten windows."""
    monkeypatch.setattr(encode, "WINDOW", 5)


@pytest.mark.usefixtures("windows")
def test_encoding_goes_on(encoder, corpus, stopping, tmp_path):
    """The stop is in the fourth window."""
    encode_corpus(encoder, corpus, tmp_path / "whole")
    calls = stopping(encode, "_encode", 4)
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(encoder, corpus, tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()
    encode_corpus(encoder, corpus, tmp_path / "stopped")
    assert len(calls) == 4 + 7
    whole, stopped = (
        contents(tmp_path / name, MATRIX, DOCIDS, MANIFEST)
        for name in ("whole", "stopped")
    )
    assert whole == stopped
    assert not parts_of(tmp_path / "stopped").exists()


@pytest.mark.usefixtures("windows")
def test_parts_of_another_corpus_are_thrown_away(encoder, corpus, stopping, tmp_path):
    calls = stopping(encode, "_encode", 4)
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(encoder, corpus, tmp_path / "out")
    other = {docid: f"not {text}" for docid, text in corpus.items()}
    encode_corpus(encoder, other, tmp_path / "out")
    assert len(calls) == 4 + 10
    alone = encode_corpus(encoder, other, tmp_path / "alone")
    assert torch.equal(Vectors.load(tmp_path / "out").matrix, alone.matrix)


@pytest.mark.usefixtures("windows")
def test_vectors_that_have_left_the_parts(encoder, corpus, stopping, tmp_path):
    """As a stop can leave it where there are no links: the parts say that they are there."""
    stopping(encode, "write_docids", 1)
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(encoder, corpus, tmp_path / "out")
    (parts_of(tmp_path / "out") / MATRIX).unlink()
    encode_corpus(encoder, corpus, tmp_path / "out")
    alone = encode_corpus(encoder, corpus, tmp_path / "alone")
    assert torch.equal(Vectors.load(tmp_path / "out").matrix, alone.matrix)


@pytest.mark.usefixtures("windows")
def test_a_stop_while_the_folder_is_renamed(
    encoder, corpus, stopping, tmp_path, monkeypatch
):
    """Nothing is encoded again."""
    calls, replace = stopping(encode, "_encode", 0), os.replace

    def stopped(source, target):
        if target == tmp_path / "out":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", stopped)
        encode_corpus(encoder, corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    encode_corpus(encoder, corpus, tmp_path / "out")
    assert len(calls) == 10
    alone = encode_corpus(encoder, corpus, tmp_path / "alone")
    assert torch.equal(Vectors.load(tmp_path / "out").matrix, alone.matrix)


def test_an_error_leaves_nothing(encoder, corpus, stopping, tmp_path):
    stopping(encode, "_encode", 1, DenseHNError("no"))
    with pytest.raises(DenseHNError):
        encode_corpus(encoder, corpus, tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


def test_mining_goes_on(
    encoder, corpus, files, topics, stopping, tmp_path, monkeypatch
):
    """24 topics in five batches; the stop is in the third."""
    monkeypatch.setattr(mine, "BATCH", 5)
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    made = encoder, vectors, files["topics"], 7
    mine.mine(*made, tmp_path / "whole", "t", files["qrels"])
    calls = stopping(search, "top_k", 3)
    with pytest.raises(KeyboardInterrupt):
        mine.mine(*made, tmp_path / "run", "t", files["qrels"])
    assert not (tmp_path / "run").exists()
    mine.mine(*made, tmp_path / "run", "t", files["qrels"])
    assert len(calls) == 3 + 3
    assert (tmp_path / "run").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / ".run.parts").exists()


@pytest.fixture
def diagnosis(encoder, bert, corpus, files, tmp_path, monkeypatch):
    """The arguments of a diagnosis of two systems; calls it."""
    encode_corpus(encoder, corpus, tmp_path / "vectors")
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    encoder.save(tmp_path / "other")
    encode_corpus(encoder, corpus, tmp_path / "other.vectors")
    argv = ["--topics", files["topics"], "--qrels", files["qrels"]]
    argv += ["--negatives", files["run"]]
    argv += ["--system", "one", bert, tmp_path / "vectors"]
    argv += ["--system", "two", tmp_path / "other", tmp_path / "other.vectors"]
    argv = [str(word) for word in argv]

    def made(output):
        words = ["diagnose", *argv, "--output", str(tmp_path / output)]
        monkeypatch.setattr("sys.argv", words)
        diagnose.main()
        return {file.name: file.read_bytes() for file in (tmp_path / output).iterdir()}

    return argv, made


def test_diagnosing_goes_on(diagnosis, stopping):
    """The first of two systems is counted once."""
    _, made = diagnosis
    whole = made("whole")
    calls = stopping(diagnose, "diagnose", 2)
    with pytest.raises(KeyboardInterrupt):
        made("stopped")
    assert made("stopped") == whole
    assert len(calls) == 3


def torchrun(*words, fails=False):
    done = subprocess.run(
        [*TORCHRUN, *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert bool(done.returncode) is fails, done.stderr
    return done


def test_two_processes_diagnose_what_one_does(diagnosis, tmp_path):
    argv, made = diagnosis
    whole = made("one")
    done = torchrun("-m", "dense_hn.diagnose", *argv, "--output", tmp_path / "two")
    assert done.stdout == whole["table.txt"].decode()
    two = {file.name: file.read_bytes() for file in (tmp_path / "two").iterdir()}
    assert two == whole


@pytest.mark.usefixtures("windows")
def test_two_processes_go_on(bert, encoder, corpus, files, tmp_path, monkeypatch):
    """The second dies in its second window, when its first is kept."""
    script = tmp_path / "encode.py"
    script.write_text(
        "import os, signal\n"
        "from dense_hn import cli, encode\n"
        "encode.WINDOW, real, calls = 5, encode._encode, []\n"
        "def called(*args):\n"
        "    calls.append(1)\n"
        "    if os.environ['RANK'] == '1' and len(calls) == int(os.environ['DIE']):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*args)\n"
        "encode._encode = called\n"
        "cli.run(encode.main)\n"
        "print('windows', len(calls))\n"
    )
    words = [script, "corpus", "--encoder", bert, "--corpus", files["corpus"]]
    words += ["--output", tmp_path / "two"]
    monkeypatch.setenv("DIE", "2")
    torchrun(*words, fails=True)
    assert not (tmp_path / "two").exists()
    kept = parts_of(tmp_path / "two")
    assert (kept / "5-10").is_file()
    assert not (kept / "15-20").exists()
    monkeypatch.setenv("DIE", "0")
    done = torchrun(*words)
    assert sum(map(int, done.stdout.replace("windows", "").split())) < 10
    whole = encode_corpus(encoder, corpus, tmp_path / "whole")
    assert torch.equal(Vectors.load(tmp_path / "two").matrix, whole.matrix)
