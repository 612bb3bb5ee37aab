"""Recipes: reading, refusing, and running each stage once."""

import contextlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from dense_hn import DenseHNError, trec
from dense_hn.encode import encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.train import commands, recipe
from dense_hn.train.__main__ import main
from dense_hn.train.ledger import Ledger
from dense_hn.train.pipeline import Pipeline


def test_the_quickstart_is_found_and_changed(tmp_path):
    read = recipe.read("quickstart", ["star.learning_rate=1e-5", "bm25.b=0.7"])
    assert read.name == "quickstart"
    assert (read.collection.kind, read.collection.value) == ("pydoc", ["stdlib"])
    assert read.bm25.b == 0.7
    # YAML takes 1e-5 for a string; the stage's argument parser makes it a number.
    _, trainer = Pipeline(read, tmp_path).trainings["star"].arguments
    assert trainer.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "collection: {pydoc: [json]}\nstarr: {}\n",
            "unknown section 'starr'; did you mean 'star'.* needs `method:`",
        ),
        (
            "zzz: {}\n",
            "there are .*, evaluate, rerank, warmup, star, adore, dynamic",
        ),
        ("new: {method: adoer}\n", "new: unknown method 'adoer'; did you .* 'adore'"),
        ("star: {from: adore}\nadore: {}\n", "star: from: unknown .* 'adore'; there"),
        ("star: {from: bm25}\n", "unknown earlier stage 'bm25'; there are base"),
        ("a/b: {method: star}\n", "a/b: files are named after"),
        ("a b: {method: star}\n", "a b: files are named after"),
        ("3: {method: star}\n", "3: files are named after"),
        ("base: {method: star}\n", "base: this name is taken"),
        ("BM25: {method: star}\n", "BM25: this name is taken"),
        ("pyserini-x: {method: star}\n", "pyserini-x: this name is taken"),
        ("star: {}\nadore: {}\nstar: {}\n", ":3: 'star' for the second time"),
        ("star: {alpha: 1, seed: 1, alpha: 2}\n", ":1: 'alpha' for the second time"),
        ("star: [1]\n", "star: expected `key: value` lines"),
        ("collection: {pydoc: [json]}\nbm25: {k: 1}\n", "bm25: unknown setting 'k'"),
        (
            "collection: {pydoc: [json], folder: x}\n",
            "give one of .*, folder",
        ),
        ("collection: {}\n", "give one of .*, folder"),
        ("collection: {pydoc: [json]}\nbm25: {k1: high}\n", "invalid float value"),
        ("collection: {pydoc: [json]}\nevaluate: {hits: 0}\n", "hits is 0"),
        ("collection: {pydoc: [json]}\nbm25: 3\n", "expected `key: value` lines"),
        ("collection: [\n", "broken YAML"),
        ("- a\n", "expected the sections"),
        (
            "collection: {pydoc: [json]}\nevaluate: {topics: train}\n",
            "'train'; give dev, test or another",
        ),
        (
            "collection: {pydoc: [json]}\nevaluate: {topics: index}\n",
            "none of train, enc",
        ),
        (
            "collection: {pydoc: [json]}\nevaluate: {measures: [nDCG(rel=2)]}\n",
            "nDCG takes the grades as they are",
        ),
    ],
)
def test_bad_recipes_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(DenseHNError, match=message):
        recipe.read(str(path))


def test_a_recipe_that_comes_along_has_no_ending():
    with pytest.raises(DenseHNError, match="or leave out the ending of quickstart$"):
        recipe.read("quickstart.yaml")
    with pytest.raises(DenseHNError, match="check the path$"):
        recipe.read("mine.yml")


def test_a_training_that_is_all_warm_up_is_told_of(tmp_path, caplog):
    read = recipe.read("quickstart", ["star.max_steps=5"])
    Pipeline(read, tmp_path)
    (told,) = [line for line in caplog.messages if "warm-up" in line]
    assert told.startswith("star: warmup_steps is 16: all of the 5 steps are warm-up")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["encoder.source=package:no_such_package/x"], "no_such_package is not inst"),
        (["encoder.poling=cls"], "'poling'; did you mean 'pooling'"),
        (["star.loss=x"], "star: unknown setting 'loss'"),
        (["star.max_step=5"], "'max_step'; did you mean 'max_steps'"),
        (
            ["star.negatives=[oracle]"],
            "stage star: unknown system or .* 'oracle'; there",
        ),
        (["star.negatives=[adore]"], "'adore'; there are bm25, base"),
        (["star.negatives=[]"], "stage star: .*required: --negatives"),
        (["star.from=star"], "star: from: unknown earlier stage 'star'"),
        (["adore.from=bse"], "'bse'; did you mean 'base'"),
        (["stars.alpha=1"], "--set stars.*unknown section 'stars'; did you .* 'star'"),
        (
            ["x.y=1"],
            "there are collection, encoder, bm25, evaluate, rerank, star, adore",
        ),
        (["x=1"], "expected SECTION.KEY=VALUE"),
        (["adore.metric_cut=0"], "metric_cut start at 1"),
        (["adore.gradient_checkpointing=true"], "use --gradient_cache instead"),
        (["star.early_stopping=2"], "early_stopping: nothing is evaluated"),
        (["star.corpus=elsewhere"], "star: corpus is filled in by the recipe"),
        (["evaluate.topics=tset"], "unknown split 'tset'; did you mean 'test'"),
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
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "error: no recipe 'no_such_recipe': name a YAML file, or one"
    )
    shipped = Path(recipe.__file__).parents[2] / "integrations" / "pyserini"
    assert all(path.stem in last for path in shipped.glob("*.yaml"))


def test_a_misspelt_stage_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "stars", "--encoder", "x"])
    with pytest.raises(
        DenseHNError, match="unknown stage 'stars'; did you mean 'star'"
    ):
        main()


def test_a_folder_that_pyserini_misreads_is_refused(tmp_path):
    with pytest.raises(DenseHNError, match="'dse'"):
        Pipeline(recipe.read("quickstart"), tmp_path / "roadseries")


def test_models_lie_where_pyserini_takes_them_for_what_they_are(
    branching, tmp_path, roberta, old_checkpoint
):
    work = tmp_path / "work" / "branching"
    for source, folder in (
        (None, "models"),
        (roberta, "ance"),
        (old_checkpoint("RobertaDot"), "ance"),
    ):
        changes = [f"encoder.source={source}"] if source else []
        pipeline = Pipeline(recipe.read(branching, changes), tmp_path)
        assert pipeline.model("wide") == work / folder / "wide"
    with pytest.raises(DenseHNError, match="reads 'ance' in .* this one is auto"):
        Pipeline(recipe.read(branching), tmp_path / "performance")
    with pytest.raises(DenseHNError, match="reads 'dpr' in .* this one is ance"):
        Pipeline(
            recipe.read(branching, [f"encoder.source={roberta}"]), tmp_path / "dpr"
        )
    with pytest.raises(DenseHNError, match="no/such/model: no such folder"):
        Pipeline(recipe.read(branching, ["encoder.source=no/such/model"]), tmp_path)


FAST = (
    "max_steps: 2, per_device_train_batch_size: 4, learning_rate: 1e-3, use_cpu: true"
)


@pytest.fixture
def branching(tmp_path, split_folder, bert):
    """A recipe with two STARs from base, an ADORE from the second, a STAR from that."""
    path = tmp_path / "branching.yaml"
    path.write_text(
        f"""
collection: {{folder: {split_folder}}}
encoder: {{source: {bert}}}
wide: {{method: star, negatives: [bm25, base], negatives_depth: 10, {FAST}}}
narrow: {{method: star, from: base, negatives_depth: 20, {FAST}}}
adore: {{adore_hits: 20, {FAST}}}
again: {{method: star, negatives: [wide, adore], negatives_depth: 10, {FAST}}}
evaluate: {{hits: 30, measures: [RR@10]}}
"""
    )
    return str(path)


def test_the_plan_of_a_branching_recipe(branching, tmp_path):
    pipeline = Pipeline(recipe.read(branching), tmp_path)
    assert list(pipeline.ledger.stages) == [
        *("collection", "topics.test", "bm25.index", "bm25.test"),
        *("base", "base.encode", "base.test"),
        *("bm25.train", "base.train", "wide", "wide.encode", "wide.test"),
        *("narrow", "narrow.encode", "narrow.test", "adore", "adore.test"),
        *("wide.train", "adore.train", "again", "again.encode", "again.test"),
        *("wide.export", "again.export", "evaluate", "cards"),
    ]
    assert not list(tmp_path.glob("work/*"))


def test_a_measure_of_more_hits_than_there_are_is_told_of(caplog):
    recipe.EvaluateSection(hits=100, measures=["R@100", "RR@1000", "MAP"])
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "evaluate: hits is 100, and RR@1000 looks at 1000: it is of the first 100"
    ]


def test_a_training_that_builds_on_others_has_another_order_of_topics(
    branching, tmp_path
):
    """As many epochs as there may be lie between; branches of one have the same."""
    pipeline = Pipeline(recipe.read(branching, ["adore.seed=7"]), tmp_path)
    seeds = {
        name: training.arguments[1].data_seed
        for name, training in pipeline.trainings.items()
    }
    assert seeds == {"wide": None, "narrow": None, "adore": 1007, "again": 2042}
    chosen = Pipeline(recipe.read(branching, ["again.data_seed=5"]), tmp_path)
    assert chosen.trainings["again"].arguments[1].data_seed == 5


AGAIN = {"again", "again.encode", "again.test", "again.export"}
ADORE = {"adore", "adore.test", "adore.train"}
NARROW = {"narrow", "narrow.encode", "narrow.test"}
WIDE = {"wide", "wide.encode", "wide.test", "wide.train", "wide.export"}


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ("again.alpha=0.5", AGAIN),
        ("adore.metric_cut=9", AGAIN | ADORE),
        ("narrow.alpha=0.5", AGAIN | ADORE | NARROW),
        ("wide.alpha=0.5", AGAIN | WIDE),
        # The runs of base are as deep as the deepest that reads them: narrow's 20.
        ("wide.negatives_depth=15", AGAIN | WIDE | {"bm25.train"}),
        (
            "wide.negatives_depth=21",
            AGAIN | WIDE | ADORE | NARROW | {"bm25.train", "base.train"},
        ),
        ("again.negatives=[adore]", AGAIN),
        ("again.from=narrow", AGAIN | {"narrow.export"}),
        ("bm25.b=0.5", AGAIN | WIDE | {"bm25.train", "bm25.test"}),
        ("evaluate.measures=[R(rel=2)@10]", set()),
    ],
)
def test_a_changed_branch_redoes_what_reads_it(branching, tmp_path, change, redone):
    one, two = (
        Pipeline(recipe.read(branching, changes), tmp_path).ledger.stages
        for changes in ([], [change])
    )
    changed = {
        name for name in two if name not in one or one[name].key != two[name].key
    }
    assert changed == redone | {"evaluate", "cards"}


@pytest.mark.usefixtures("pyserini_here")
def test_a_branching_recipe_from_end_to_end(
    branching, split_folder, tmp_path, corpus, topics, capsys
):
    pipeline = Pipeline(recipe.read(branching), tmp_path)
    pipeline.run()
    report = pipeline.report()
    runs = tmp_path / "runs" / "branching"
    models = tmp_path / "work" / "branching" / "models"
    systems = ["bm25", "base", "wide", "narrow", "adore", "again"]
    mined = ["bm25", "base", "wide", "adore"]
    names = {f"{name}.test.txt" for name in systems}
    names |= {f"{name}.train.txt" for name in mined}
    # What each was made from stands beside it.
    names |= {f"{name}.json" for name in names}
    assert {path.name for path in runs.iterdir()} == (
        names | {"table.test.txt", "table.test.json"}
    )
    rows = json.loads((runs / "table.test.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["BM25", "untrained", *systems[2:]]
    for name, hits in (("bm25", 10), ("base", 20), ("wide", 10), ("adore", 10)):
        lengths = [len(h) for h in trec.read_run(runs / f"{name}.train.txt").values()]
        # A model's runs also list the relevant documents behind the hits.
        assert (max if name == "bm25" else min)(lengths) == hits

    # ADORE's queries search the passages of the stage it started from.
    adore = trec.read_run(runs / "adore.test.txt")
    queries = DenseEncoder.load(str(models / "adore"))
    passages = DenseEncoder.load(str(models / "narrow"))
    matrix = encode_texts(passages, list(corpus.values()), "passage").double()
    for qid, hits in adore.items():
        query = encode_texts(queries, [topics[qid]], "query").double()[0]
        scores = dict(zip(corpus, (matrix @ query).tolist(), strict=True))
        assert hits == pytest.approx({d: scores[d] for d in hits}, abs=1e-5)
        assert min(hits.values()) >= sorted(scores.values())[-30] - 1e-5

    # The last stage is what its command line makes of the files between.
    argv = ["--encoder", str(models / "adore"), "--output_dir", str(tmp_path / "again")]
    argv += ["--corpus", str(split_folder / "corpus" / "corpus.jsonl")]
    argv += ["--topics", str(split_folder / "topics.train.tsv")]
    argv += [
        "--qrels",
        str(split_folder / "qrels.train.txt"),
        "--negatives_depth",
        "10",
    ]
    argv += ["--negatives", *(str(runs / f"{n}.train.txt") for n in ("wide", "adore"))]
    argv += [f"--{word}".replace(": ", "=") for word in FAST.split(", ")]
    # Two trainings came before it.
    argv += ["--data_seed", "2042"]
    commands.train("star", argv)
    by_hand = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert (models / "again" / "model.safetensors").read_bytes() == by_hand

    heads = [line for line in report.splitlines() if line.endswith(" in Pyserini:")]
    assert heads == ["wide in Pyserini:", "again in Pyserini:"]
    indexes = tmp_path / "work" / "branching" / "indexes"
    assert {path.name for path in indexes.iterdir()} == {"bm25", "wide", "again"}

    assert "── again (20 of 26)" in capsys.readouterr().out
    # The recipe as it ran is a recipe, the same.
    ran = tmp_path / "work" / "branching" / "branching.yaml"
    assert recipe.read(str(ran)) == recipe.read(branching)

    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    second = Pipeline(recipe.read(branching), tmp_path)
    second.run()
    assert {
        p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()
    } == before
    assert "──" not in capsys.readouterr().out
    stages = second.report().partition("\nall ")[0].splitlines()[1:]
    assert len(stages) == 26
    assert all(line.endswith("(done before)") for line in stages)


def test_a_method_gets_the_files_that_it_has_fields_for(
    branching, split_folder, tmp_path
):
    def plan(*changes):
        changes = ["method=warmup", "eval_steps=1", *changes]
        changes = [f"wide.{change}" for change in changes]
        pipeline = Pipeline(recipe.read(branching, changes), tmp_path)
        return pipeline.trainings["wide"].arguments[0], pipeline.ledger.stages

    runs = tmp_path / "runs" / "branching"
    teacher = tmp_path / "teacher.txt"
    teacher.write_text("q0 Q0 red-lamp 1 1.0 t\n")
    taught = [f"teacher={teacher}", "drop_max_score=9"]
    args, before = plan("negatives=[]", *taught, "eval_strategy=no")
    assert (args.negatives, args.teacher) == ([], str(teacher))
    assert (args.eval_topics, args.eval_qrels) == (None, None)
    assert "bm25.train" not in before
    assert "topics.dev" not in before
    teacher.write_text("q0 Q0 red-door 1 1.0 t\n")
    _, after = plan("negatives=[]", *taught, "eval_strategy=no")
    assert before["wide"].key != after["wide"].key
    assert before["narrow"].key == after["narrow"].key

    args, before = plan("teacher=base", "drop_max_score=9", "eval_strategy=steps")
    assert args.negatives == [
        str(runs / "bm25.train.txt"),
        str(runs / "base.train.txt"),
    ]
    assert args.teacher == str(runs / "base.train.txt")
    assert args.eval_topics == str(split_folder / "topics.dev.tsv")
    assert args.eval_qrels == str(split_folder / "qrels.dev.txt")
    (split_folder / "topics.dev.tsv").write_text("q12\tanother lamp\n")
    _, after = plan("teacher=base", "drop_max_score=9", "eval_strategy=steps")
    assert before["wide"].key != after["wide"].key
    assert before["narrow"].key == after["narrow"].key
    with pytest.raises(DenseHNError, match="unknown system or run file 'x.txt'"):
        plan("teacher=x.txt", "drop_max_score=9")
    with pytest.raises(DenseHNError, match="stage wide: eval_qrels is filled in"):
        plan("eval_qrels=x")
    (split_folder / "qrels.dev.txt").unlink()
    with pytest.raises(
        DenseHNError, match="the dev topics are not judged.*dense_hn.mine"
    ):
        plan("eval_strategy=steps")


def test_a_change_of_a_section_leaves_its_alias_alone(tmp_path):
    path = tmp_path / "alias.yaml"
    path.write_text(
        "collection: {pydoc: [json]}\n"
        "a: &a {method: star, alpha: 1}\nb: *a\nc: {<<: *a, seed: 3}\n"
    )
    a, b, c = recipe.read(str(path), ["b.alpha=2"]).stages
    assert (a.settings, b.settings) == ({"alpha": 1}, {"alpha": 2})
    assert c.settings == {"alpha": 1, "seed": 3}
    assert [stage.source for stage in (a, b, c)] == ["base", "a", "b"]


def test_the_ledger_redoes_what_changed_and_what_hangs_on_it(tmp_path):
    done, stop = [], []

    def work(name, output):
        if name in stop:
            raise InterruptedError
        done.append(name)
        output.touch()

    def pass_over(first="a", second="b"):
        ledger = Ledger(tmp_path / "stages.json")
        for name, settings, after in (
            ("one", first, []),
            ("two", second, []),
            ("three", None, ["one"]),
            ("four", None, ["three", "two"]),
        ):
            output = tmp_path / name
            ledger.add(
                name,
                partial(work, name, output),
                [output],
                settings,
                after=after,
            )
        ledger.run()
        made, done[:] = list(done), []
        return made

    assert pass_over() == ["one", "two", "three", "four"]
    assert pass_over() == []
    assert pass_over(first="changed") == ["one", "three", "four"]
    assert pass_over(first="changed", second="changed") == ["two", "four"]
    (tmp_path / "three").unlink()
    # What was only removed is made again, and stopped on the way, too, nothing else is.
    stop.append("three")
    with pytest.raises(InterruptedError):
        pass_over(first="changed", second="changed")
    stop.clear()
    assert pass_over(first="changed", second="changed") == ["three"]

    # Stopped on the way to other settings, and back: what hangs on it is of neither.
    stop.append("three")
    with pytest.raises(InterruptedError):
        pass_over(first="other", second="changed")
    stop.clear()
    done.clear()
    assert pass_over(first="changed", second="changed") == ["one", "three", "four"]


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
        ledger.add("one", lambda f=fail: make(f), [tmp_path / "one"], settings)
        with pytest.raises(DenseHNError) if fail else contextlib.nullcontext():
            ledger.run()
    assert done == ["one", "one"]
