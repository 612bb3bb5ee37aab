"""Two processes encode and search a part each, and write what one would."""

import atexit
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import distributed

from dense_hn import cli, encode, mine
from dense_hn.collections.corpus import write_corpus
from dense_hn.encode import COSTS, encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.vectors import DOCIDS, MANIFEST, MATRIX

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]


def run(*arguments):
    """A command in two processes."""
    done = subprocess.run(
        [*TORCHRUN, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


def test_two_processes_write_what_one_does(bert, files, corpus, home, monkeypatch):
    # As `-m dense_hn.encode`, in windows that are small enough for both to have several;
    # and then as `-m dense_hn.mine`.
    script = home / "both.py"
    script.write_text(
        "import sys\n"
        "from dense_hn import cli, encode, mine\n"
        "encode.WINDOW, words = 5, sys.argv[1:]\n"
        "for main in encode.main, mine.main:\n"
        "    end = words.index('END')\n"
        "    sys.argv[1:], words = words[:end], words[end + 1 :]\n"
        "    cli.run(main)\n"
    )
    monkeypatch.setattr(encode, "WINDOW", 5)
    encoder = DenseEncoder.load(str(bert))
    vectors = encode_corpus(encoder, corpus, home / "one")
    one, two = home / "one.txt", home / "two.txt"
    mine.mine(encoder, vectors, files["topics"], 7, one, "dense_hn", files["qrels"])
    encoding = ["corpus", "--encoder", bert, "--corpus", files["corpus"]]
    mining = ["--encoder", bert, "--vectors", home / "one"]
    mining += ["--topics", files["topics"], "--hits", "7", "--qrels", files["qrels"]]
    encoding += ["--output", home / "two", "END"]
    run(script, *encoding, *mining, "--output", two, "END")
    assert one.read_bytes() == two.read_bytes()
    for name in (DOCIDS, MANIFEST):
        assert (home / "one" / name).read_bytes() == (home / "two" / name).read_bytes()
    one, two = (np.load(home / name / MATRIX) for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)
    assert "passages_per_second" in json.loads((home / "two" / COSTS).read_text())


def test_two_processes_keep_documents_whole(bert, corpus, tmp_path, monkeypatch):
    """Six documents of eight passages, in windows that would cut them, for two processes."""
    script = tmp_path / "encode.py"
    script.write_text(
        "from dense_hn import cli, encode\nencode.WINDOW = 5\ncli.run(encode.main)\n"
    )
    passages = {f"d{n // 8}#{n % 8}": text for n, text in enumerate(corpus.values())}
    write_corpus(tmp_path / "corpus.jsonl", passages)
    encoder = DenseEncoder.load(str(bert), document_weight=1, document_length=32)
    encoder.save(tmp_path / "encoder")
    monkeypatch.setattr(encode, "WINDOW", 5)
    one = encode_corpus(encoder, passages, tmp_path / "one").matrix
    given = ["corpus", "--encoder", tmp_path / "encoder", "--output", tmp_path / "two"]
    run(script, *given, "--corpus", tmp_path / "corpus.jsonl")
    two = np.load(tmp_path / "two" / MATRIX)
    np.testing.assert_array_equal(one.numpy(), two)


def test_a_command_takes_leave_of_the_others(tmp_path, monkeypatch):
    """Threads that are left behind may abort the process at its end."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    at_the_end = []
    monkeypatch.setattr(atexit, "register", at_the_end.append)
    cli.run(lambda: None)
    for call in at_the_end:
        call()
    assert not distributed.is_initialized()
