"""What is handed in is read, never run, and nothing goes over the network unasked."""

import json
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dense_hn import DenseHNError, trec
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.mine import mine
from dense_hn.train import arguments, commands, recipe

ROOT = Path(__file__).parents[1]
# bandit's, by ruff: exec, pickle, eval, YAML that makes objects, shells, archives that are
# unpacked whole.
RULES = "S102,S202,S301,S302,S307,S506,S602,S604,S605"


class Touches:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


def test_no_pickle_in_a_checkpoint_is_opened(bert, tmp_path):
    run, folder = tmp_path / "run", tmp_path / "model"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touches(run)))
    with pytest.raises(DenseHNError, match="model"):
        DenseEncoder.load(str(folder))
    assert not run.exists()
    # It would have been, by what we do not do.
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert run.exists()


def test_no_code_in_a_checkpoint_is_run(bert, tmp_path):
    """Transformers would import it with trust_remote_code."""
    run, folder = tmp_path / "run", tmp_path / "model"
    shutil.copytree(bert, folder)
    code = f"import pathlib\npathlib.Path({str(run)!r}).touch()\n"
    (folder / "modeling.py").write_text(
        f"{code}class Model: pass\nclass Config: pass\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoModel": "modeling.Model",
        "AutoConfig": "modeling.Config",
    }
    (folder / "config.json").write_text(json.dumps(config))
    try:
        DenseEncoder.load(str(folder))
    except DenseHNError as error:
        assert str(folder) in str(error)
    assert not run.exists()


def test_a_recipe_makes_no_objects(tmp_path):
    run = tmp_path / "run"
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"collection: !!python/object/apply:pathlib.Path.touch [{run}]\n"
        f"encoder: !!python/object/apply:os.system ['touch {run}']\n"
    )
    with pytest.raises(DenseHNError, match=r"recipe\.yaml"):
        recipe.read(str(path))
    assert not run.exists()


def test_local_folders_need_no_network(bert, corpus, files, tmp_path, monkeypatch):
    """Training, encoding and searching, where a connection is an error."""

    def refused(*args, **kwargs):
        pytest.fail(f"a connection to {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    named = {"encoder": bert, "corpus": files["corpus"], "topics": files["topics"]}
    named |= {"qrels": files["qrels"], "negatives": files["run"], "max_steps": 2}
    named |= {"use_cpu": True, "output_dir": tmp_path / "star"}
    commands.train("star", arguments.argv_of(named))
    encoder = DenseEncoder.load(str(tmp_path / "star"))
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    mine(encoder, vectors, files["topics"], 5, tmp_path / "hits", "t")
    assert len(trec.read_run(tmp_path / "hits")) == 24


def test_nothing_in_the_package_runs_what_it_reads():
    words = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", RULES]
    words += [str(ROOT / "dense_hn"), "--output-format", "concise"]
    done = subprocess.run(words, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    loads = [
        line
        for path in (ROOT / "dense_hn").rglob("*.py")
        for line in path.read_text().splitlines()
        if "torch.load(" in line
    ]
    assert loads
    assert all("weights_only=True" in line for line in loads)
