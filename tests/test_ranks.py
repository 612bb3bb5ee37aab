"""Two processes encode and search a part each, and write what one would."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dense_hn.encode import COSTS, DOCIDS, MANIFEST, MATRIX

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]


def run(command, *arguments):
    """A command, and what it said."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


def test_two_processes_write_what_one_does(bert, files, home):
    alone, both = [sys.executable, "-m"], [*TORCHRUN, "-m"]
    # As `-m dense_hn.encode`, in windows that are small enough for both to have several.
    script = home / "encode.py"
    script.write_text(
        "from dense_hn import cli, encode\nencode.WINDOW = 5\ncli.run(encode.main)\n"
    )
    encode = [script, "corpus", "--encoder", bert, "--corpus", files["corpus"]]
    run([sys.executable], *encode, "--output", home / "one")
    run(TORCHRUN, *encode, "--output", home / "two")
    for name in (DOCIDS, MANIFEST):
        assert (home / "one" / name).read_bytes() == (home / "two" / name).read_bytes()
    one, two = (np.load(home / name / MATRIX) for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)
    assert "passages_per_second" in json.loads((home / "two" / COSTS).read_text())

    mine = ["dense_hn.mine", "--encoder", bert, "--vectors", home / "one"]
    mine += ["--topics", files["topics"], "--hits", "7", "--qrels", files["qrels"]]
    run(alone, *mine, "--output", home / "one.txt")
    run(both, *mine, "--output", home / "two.txt")
    assert (home / "one.txt").read_bytes() == (home / "two.txt").read_bytes()
