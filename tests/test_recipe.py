"""Recipes: reading, refusing, and running each stage once."""

import contextlib
import subprocess
import sys

import pytest

from dense_hn import DenseHNError
from dense_hn.train import recipe
from dense_hn.train.ledger import Ledger
from dense_hn.train.pipeline import Pipeline


def test_the_quickstart_is_found_and_changed(tmp_path):
    read = recipe.read("quickstart", ["star.learning_rate=1e-5", "bm25.b=0.7"])
    assert read.name == "quickstart"
    assert read.collection.pydoc == ["stdlib"]
    assert read.bm25.b == 0.7
    # YAML takes 1e-5 for a string; the stage's argument parser makes it a number.
    assert Pipeline(read, tmp_path).star[1].learning_rate == 1e-5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("collection: {pydoc: [json]}\nstarr: {}\n", "unknown section 'starr'"),
        ("collection: {pydoc: [json]}\nbm25: {k: 1}\n", "bm25: unknown key 'k'"),
        ("collection: {pydoc: [json], folder: x}\n", "give either pydoc or folder"),
        ("collection: {}\n", "give either pydoc or folder"),
        ("collection: {pydoc: [json]}\nbm25: {k1: high}\n", "invalid float value"),
        ("collection: {pydoc: [json]}\nevaluate: {hits: 0}\n", "hits is 0"),
        ("collection: {pydoc: [json]}\nbm25: 3\n", "expected `key: value` lines"),
        ("collection: [\n", "broken YAML"),
        ("- a\n", "expected the sections"),
        ("collection: {pydoc: [json]}\nevaluate: {topics: all}\n", "not dev or test"),
        (
            "collection: {pydoc: [json]}\nevaluate: {measures: [P@5]}\n",
            "unknown measure",
        ),
    ],
)
def test_bad_recipes_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(DenseHNError, match=message):
        recipe.read(str(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["encoder.source=package:no_such_package/x"], "no_such_package is not inst"),
        (["encoder.poling=cls"], "unknown key 'poling'"),
        (["star.loss=x"], "star: unknown setting 'loss'"),
        (["star.max_step=5"], "'max_step'; did you mean 'max_steps'"),
        (["star.negatives=[oracle]"], "negatives is \\['oracle'\\]"),
        (["adore.metric_cut=0"], "metric_cut start at 1"),
        (["star.corpus=elsewhere"], "star: corpus is filled in by the recipe"),
        (
            ["collection.pydoc=[]", "collection.folder=absent"],
            "absent/corpus/corpus.jsonl",
        ),
    ],
)
def test_impossible_settings_are_refused_before_the_first_stage(
    tmp_path, changes, message
):
    with pytest.raises(DenseHNError, match=message):
        Pipeline(recipe.read("quickstart", changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_recipe_is_one_line_on_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "dense_hn.train", "no_such_recipe"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "error: no recipe 'no_such_recipe': name a YAML file, or one of quickstart"
    )


def test_a_folder_that_pyserini_misreads_is_refused(tmp_path):
    with pytest.raises(DenseHNError, match="'dse'"):
        Pipeline(recipe.read("quickstart"), tmp_path / "roadseries")


def test_the_ledger_redoes_what_changed_and_what_hangs_on_it(tmp_path):
    done = []

    def pass_over(first="a", second="b"):
        ledger = Ledger(tmp_path / "stages.json")
        for name, settings, after in (
            ("one", first, []),
            ("two", second, []),
            ("three", None, ["one"]),
            ("four", None, ["three", "two"]),
        ):
            output = tmp_path / name
            ledger.run(
                name,
                lambda name=name, output=output: (done.append(name), output.touch()),
                [output],
                settings,
                after=after,
            )
        made, done[:] = list(done), []
        return made

    assert pass_over() == ["one", "two", "three", "four"]
    assert pass_over() == []
    assert pass_over(first="changed") == ["one", "three", "four"]
    assert pass_over(first="changed", second="changed") == ["two", "four"]
    (tmp_path / "three").unlink()
    assert pass_over(first="changed", second="changed") == ["three"]


def test_a_failed_stage_is_forgotten(tmp_path):
    """Back at the first settings, its outputs may be half of the second making."""
    done = []

    def make(fail):
        (tmp_path / "one").touch()
        if fail:
            raise DenseHNError("broken")
        done.append("one")

    for settings, fail in (("a", False), ("b", True), ("a", False)):
        ledger = Ledger(tmp_path / "stages.json")
        with pytest.raises(DenseHNError) if fail else contextlib.nullcontext():
            ledger.run("one", lambda f=fail: make(f), [tmp_path / "one"], settings)
    assert done == ["one", "one"]
