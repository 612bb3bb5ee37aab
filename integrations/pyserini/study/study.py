"""Every method of study.yaml, and sentence-transformers, on real collections.

    python integrations/pyserini/study/study.py --collections DIR --output DIR

trains on each collection, in BEIR's layout under ``--collections`` (pydoc is made, and
NAME-passages cut from NAME), with each seed, all methods with one budget. ``--output`` gets a
folder for each collection and seed, as recipes write them, with the recipe itself, and what
results.py reads. With ``--split dev``,
by which settings are chosen, nothing is kept for results.py. With ``--transfer NAME``, what was
trained searches that collection's test topics as well. With ``--curves STEPS`` trainings are
evaluated on dev and training topics every so many steps, for diagnose.md; nothing is kept for
results.py, and sentence-transformers does not train.
"""

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import yaml
from results import ALTERNATIVE, OURS, QRELS, RUNS, STATIC, UNTRAINED

from dense_hn import DenseHNError, cli, maxp, trec
from dense_hn.collections.corpus import read_corpus
from dense_hn.encode import COSTS, encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.files import whole_file
from dense_hn.mine import mine
from dense_hn.mix import mix
from dense_hn.train import arguments, recipe
from dense_hn.train.pipeline import Pipeline
from dense_hn.vectors import Vectors

HERE = Path(__file__).parent
# Hits of a topic in the runs that are kept.
DEPTH = 20
SEEDS = (42, 43, 44)
# Whose best passage of a relevant document is meant; BM25 does not list all.
POSITIVES = ["bm25", "base"]
# Evaluation while training, after which the last weights are kept as without it.
CURVES = {
    "eval_strategy": "steps",
    "eval_on_start": True,
    "eval_training_topics": 300,
    # Of the corpus.
    "eval_share": 0.1,
    "load_best_model_at_end": False,
}
# The collection that is made here, and those whose documents are cut.
PYDOC = "pydoc"
PASSAGES = "-passages"
# Of the trainings in what --mixed searches with; the rest is the base.
SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What every method gets on a collection."""

    # Tokens of a passage where the corpus is encoded, and in training.
    length: int
    cut: int
    # Queries of a batch.
    batch: int
    # Steps of the warm-up, of each method after it, and of ADORE after that.
    warmup: int
    steps: int
    adore: int
    # Steps of sentence-transformers: they take about as long as all of these, or longer.
    alternative: int
    # Whether negatives are only what some training query asks for.
    judged_only: bool = False
    # Queries that a passage is encoded for at once, in training both sides.
    topics_per_positive: int = 1
    # Of a passage, and of the overlap of two, where documents are cut, their titles left out;
    # and how much of its document's vector is added to each one's.
    words: int = 0
    overlap: int = 0
    document_weight: float = 0.0


BUDGETS = {
    "fairytaleqa": Budget(
        length=256,
        cut=192,
        batch=16,
        warmup=60,
        steps=90,
        adore=200,
        alternative=170,
        judged_only=True,
        topics_per_positive=4,
    ),
    "fairytaleqa-passages": Budget(
        length=48,
        cut=32,
        batch=64,
        warmup=100,
        steps=200,
        adore=200,
        alternative=600,
        judged_only=True,
        topics_per_positive=2,
        words=15,
        overlap=5,
        document_weight=1.0,
    ),
    "nl2bash": Budget(
        length=128,
        cut=64,
        batch=32,
        warmup=100,
        steps=200,
        adore=200,
        alternative=300,
        judged_only=True,
    ),
    PYDOC: Budget(
        length=128, cut=96, batch=16, warmup=40, steps=80, adore=200, alternative=250
    ),
    "scifact": Budget(
        length=256, cut=192, batch=16, warmup=30, steps=60, adore=60, alternative=110
    ),
    "wikitablequestions": Budget(
        length=256,
        cut=96,
        batch=16,
        warmup=40,
        steps=80,
        adore=200,
        alternative=290,
        judged_only=True,
    ),
}


def filled(
    name: str,
    source: Mapping,
    seed: int,
    split: str,
    stages: Sequence[str],
    curves: int = 0,
) -> dict:
    """study.yaml for a collection and a seed, with these stages; all, if none is named.

    With ``curves`` the stages after the warm-up are evaluated every so many steps.
    """
    budget = BUDGETS[name]
    sections = yaml.safe_load((HERE / "study.yaml").read_text(encoding="utf-8"))
    fixed = {key: sections.pop(key) for key in ("encoder", "evaluate")}
    fixed["encoder"] |= {"passage_length": budget.length}
    if budget.document_weight:
        fixed["encoder"]["document_weight"] = budget.document_weight
    wanted = set(stages or sections)
    for stage in reversed(sections):
        if stage in wanted:
            wanted |= {sections[stage]["from"], *sections[stage].get("negatives", ())}
    trainings = {}
    for stage, settings in sections.items():
        if stage not in wanted:
            continue
        query_side = settings["method"] == "adore"
        steps = budget.adore if query_side else budget.steps
        steps = budget.warmup if stage == "warmup" else steps
        trainings[stage] = settings | {
            "max_steps": steps,
            "warmup_steps": steps // 10,
            "seed": seed,
        }
        if budget.words:
            trainings[stage]["positives"] = POSITIVES
        if curves and stage != "warmup":
            trainings[stage] |= CURVES | {"eval_steps": curves}
        if budget.judged_only:
            trainings[stage]["judged_only"] = True
        if not query_side:
            trainings[stage] |= {
                "per_device_train_batch_size": budget.batch,
                "passage_length": budget.cut,
            }
            if budget.topics_per_positive > 1:
                trainings[stage]["topics_per_positive"] = budget.topics_per_positive
    fixed["evaluate"] |= {"topics": split}
    return {"collection": dict(source), **fixed, **trainings}


def run(args: argparse.Namespace) -> None:
    """Train and evaluate, one collection and seed after another."""
    if args.transfer and (args.curves or args.split != "test"):
        raise DenseHNError(
            "--transfer keeps runs of test topics: without --curves, --split"
        )
    if (args.transfer or args.mixed) and args.stages and OURS not in args.stages:
        raise DenseHNError(f"--transfer and --mixed need {OURS} among --stages")
    if args.mixed and args.curves:
        raise DenseHNError(
            "--mixed searches with sentence-transformers, too: without --curves"
        )
    if args.mixed and any(BUDGETS[name].words for name in args.only or BUDGETS):
        raise DenseHNError("--mixed: name collections that are not cut, with --only")
    trained: dict[int, list[Pipeline]] = {seed: [] for seed in args.seeds}
    for name in args.only or BUDGETS:
        for seed in args.seeds:
            root = args.output / name / str(seed)
            source = source_of(args.collections, name)
            sections = filled(name, source, seed, args.split, args.stages, args.curves)
            pipeline = declared(root / "study.yaml", sections)
            if not args.curves:
                add_alternative(pipeline, BUDGETS[name], seed)
            pipeline.run()
            print(pipeline.report())
            trained[seed].append(pipeline)
            if args.split == "test" and not args.curves:
                systems = [*UNTRAINED, *pipeline.trainings, ALTERNATIVE]
                keep_runs(pipeline, systems, args.output, name, seed)
                keep_costs(pipeline, systems, args.output / RUNS / name, seed)
            for other in args.transfer:
                source = source_of(args.collections, other)
                transfer(pipeline, source, root / f"{other}.yaml", args.output, seed)
    for seed, pipelines in trained.items():
        for other in args.mixed:
            mixed(pipelines, args, other, seed)


def source_of(collections: Path, name: str) -> dict:
    """Where a recipe has a collection from."""
    if name == PYDOC:
        return {PYDOC: ["stdlib"]}
    budget = BUDGETS.get(name)
    if budget is None or not budget.words:
        return {"beir": str(collections / name)}
    folder = str(collections / name.removesuffix(PASSAGES))
    of = {"beir": {"folder": folder, "titles": False}}
    return {"passages": {"of": of, "words": budget.words, "overlap": budget.overlap}}


def declared(path: Path, sections: Mapping) -> Pipeline:
    """Write a recipe, and read it as the recipe of its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(sections), sort_keys=False))
    return Pipeline(recipe.read(str(path)), path.parent)


def add_alternative(pipeline: Pipeline, budget: Budget, seed: int) -> None:
    """Declare the training and the run of sentence-transformers."""
    options = {
        "max_steps": budget.alternative,
        "passage_length": budget.cut,
        "batch_size": budget.batch,
        "seed": seed,
        # As our stages, and better on nl2bash's dev topics.
        "dropout": 0.0,
        "judged_only": budget.judged_only,
    }
    after = ["collection", "base"]
    if budget.words:
        runs = [pipeline.hits(system, "train") for system in POSITIVES]
        options["positives"] = [*map(str, runs)]
        after += [f"{system}.train" for system in POSITIVES]
    folder = pipeline.model(ALTERNATIVE)
    code = (HERE / "alternative.py").read_text(encoding="utf-8")
    pipeline.ledger.add(
        ALTERNATIVE,
        partial(train_alternative, pipeline, folder, options),
        [folder],
        [options, code],
        after=after,
    )
    add_search(pipeline, pipeline, ALTERNATIVE, ALTERNATIVE)


def transfer(
    trained: Pipeline, source: Mapping, path: Path, output: Path, seed: int
) -> None:
    """Search another collection with what was trained, and keep the runs."""
    pipeline = elsewhere(trained, source, path, "test", {})
    systems = [STATIC, OURS, ALTERNATIVE]
    for system in systems:
        add_search(pipeline, trained, system, trained.passages(system))
    pipeline.run()
    name = f"{path.stem}-after-{trained.work.parents[2].name}"
    keep_runs(pipeline, [*UNTRAINED, *systems], output, name, seed)


def mixed(
    trained: Sequence[Pipeline], args: argparse.Namespace, name: str, seed: int
) -> None:
    """Search another collection with all that was trained, and the base, mixed into one.

    Runs of test topics are kept.
    """
    path = args.output / "mixed" / str(seed) / f"{name}.yaml"
    length = max(one.encoder_settings["passage_length"] for one in trained)
    source, changes = source_of(args.collections, name), {"passage_length": length}
    pipeline = elsewhere(trained[0], source, path, args.split, changes)
    systems = [STATIC, OURS, ALTERNATIVE]
    for system in systems:
        space = trained[0].passages(system)
        add_mixture(pipeline, trained, system, space)
        add_search(pipeline, pipeline, system, space)
    pipeline.run()
    if args.split == "test":
        kept = f"{name}-after-{len(trained)}"
        keep_runs(pipeline, [*UNTRAINED, *systems], args.output, kept, seed)


def elsewhere(
    trained: Pipeline, source: Mapping, path: Path, split: str, changes: Mapping
) -> Pipeline:
    """The recipe of a collection that nothing is trained on, written to ``path``."""
    sections = {
        "collection": dict(source),
        "encoder": trained.recipe.encoder | dict(changes),
        "evaluate": asdict(trained.recipe.evaluate) | {"topics": split},
    }
    return declared(path, sections)


def add_mixture(
    pipeline: Pipeline, trained: Sequence[Pipeline], system: str, space: str
) -> None:
    """Declare the mixture of a system's trainings, by the system's name.

    Args:
        pipeline: whose collection is searched.
        trained: where the models are.
        system: of them.
        space: the system that has its passages.
    """
    sources = [pipeline.model("base"), *(one.model(system) for one in trained)]
    weights = [1 - SHARE, *[SHARE / len(trained)] * len(trained)]
    searched = "" if space == system else str(pipeline.model(space))
    folder, settings = pipeline.model(system), pipeline.encoder_settings

    def write() -> None:
        mix([*map(str, sources)], weights, searched, **settings).save(folder)

    key = [weights, *(one.ledger.stages[system].key for one in trained)]
    after = ["base", *([space] if searched else [])]
    pipeline.ledger.add(system, write, [folder], key, after=after)


def add_search(pipeline: Pipeline, trained: Pipeline, system: str, space: str) -> None:
    """Declare the run, and the vectors, of models that the recipe does not know of.

    Args:
        pipeline: whose collection is searched.
        trained: where the models are.
        system: the query encoder.
        space: the passage encoder.
    """
    encoding, searching = f"{space}.encode", f"{system}.{pipeline.split}"
    stages = pipeline.ledger.stages
    if encoding not in stages:
        pipeline.ledger.add(
            encoding,
            partial(encode, pipeline, trained.model(space)),
            [pipeline.vectors(space)],
            trained.ledger.stages[space].key,
            after=[stage for stage in ("collection", space) if stage in stages],
        )
    pipeline.ledger.add(
        searching,
        partial(search, pipeline, system, trained.model(system), space),
        [pipeline.hits(system, pipeline.split)],
        trained.ledger.stages[system].key,
        after=[encoding],
    )


def train_alternative(pipeline: Pipeline, folder: Path, options: Mapping) -> None:
    """Train in a process of its own, as a user would."""
    command = [sys.executable, str(HERE / "alternative.py")]
    command += ["--collection", str(pipeline.collection), "--output", str(folder)]
    command += ["--encoder", str(pipeline.model("base"))]
    command += arguments.argv_of(options)
    if subprocess.run(command, check=False).returncode:
        raise DenseHNError(f"failed: {' '.join(command)}")


def loaded(pipeline: Pipeline, folder: Path) -> DenseEncoder:
    """An encoder with the settings of this collection."""
    return DenseEncoder.load(str(folder), **pipeline.encoder_settings)


def encode(pipeline: Pipeline, folder: Path) -> None:
    """The passage vectors of an encoder."""
    corpus, vectors = read_corpus(pipeline.corpus), pipeline.vectors(folder.name)
    encode_corpus(loaded(pipeline, folder), corpus, vectors)


def search(pipeline: Pipeline, system: str, folder: Path, space: str) -> None:
    """The run of a query encoder, by the same search as all others."""
    topics = pipeline.topics(pipeline.split)
    output = pipeline.hits(system, pipeline.split)
    vectors, hits = Vectors.load(pipeline.vectors(space)), pipeline.recipe.evaluate.hits
    encoder, folded = loaded(pipeline, folder), pipeline.max_passage
    mine(encoder, vectors, topics, hits, output, system, max_passage=folded)


def keep_runs(
    pipeline: Pipeline, systems: Sequence[str], output: Path, name: str, seed: int
) -> None:
    """Copy what the tables are made from."""
    for system in systems:
        found = trec.read_run(pipeline.hits(system, pipeline.split))
        path = output / RUNS / name / f"{system}.{seed}.txt.gz"
        if system in UNTRAINED:
            # They have no seed.
            path = path.with_name(f"{system}.txt.gz")
        # Ranks are all that a measure sees, and pack well.
        kept = {
            qid: {docid: -n for n, docid in enumerate(trec.ranked(hits)[:DEPTH])}
            for qid, hits in found.items()
        }
        with whole_file(path) as part:
            trec.write_run(part, kept, system)
            # Without a time, so that the same run gives the same bytes.
            part.write_bytes(gzip.compress(part.read_bytes(), mtime=0))
    qrels = trec.read_qrels(pipeline.qrels)
    path = output / QRELS / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    trec.write_qrels(path, qrels)
    if pipeline.trainings:
        trained = trec.read_qrels(pipeline.judged("train"))
        if pipeline.max_passage:
            trained = maxp.of_documents(trained)
        asked = {docid for qid in trained for docid in trec.positives(trained, qid)}
        known = [
            qid for qid in qrels if not asked.isdisjoint(trec.positives(qrels, qid))
        ]
        with whole_file(path.with_suffix(".known.txt")) as part:
            part.write_text("".join(f"{qid}\n" for qid in known))


def keep_costs(
    pipeline: Pipeline, systems: Sequence[str], folder: Path, seed: int
) -> None:
    """Write what each system's run took, from the corpus on."""
    facts = json.loads((pipeline.work / "stages.json").read_text())
    # It trains in a process of its own, which knows what it held.
    facts[ALTERNATIVE] |= json.loads((pipeline.model(ALTERNATIVE) / COSTS).read_text())
    spent = {}
    for system in systems:
        run = f"{system}.{pipeline.split}"
        needed = [facts[stage] for stage in pipeline.ledger.needed(run)]
        spent[system] = {
            "seconds": round(sum(one["seconds"] for one in needed), 1),
            "peak_memory_gib": max(one["peak_memory_gib"] for one in needed),
        }
    path = folder / f"costs.{seed}.json"
    # Of an earlier call, with other stages.
    earlier = json.loads(path.read_text()) if path.is_file() else {}
    spent = earlier | spent
    with whole_file(path) as part:
        part.write_text(json.dumps(spent, indent=2) + "\n")


def main() -> None:
    """Run the study from the command line."""
    parser = cli.parser("study.py", __doc__)
    parser.add_argument("--collections", type=Path, required=True, help="BEIR folders")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--only", nargs="+", choices=BUDGETS, help="default: all")
    stages = yaml.safe_load((HERE / "study.yaml").read_text(encoding="utf-8"))
    parser.add_argument(
        "--stages",
        nargs="+",
        default=(),
        choices=[name for name, of in stages.items() if "method" in of or "from" in of],
        help="of study.yaml (all)",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--split", default="test", help="dev to choose settings by")
    parser.add_argument(
        "--curves", type=int, default=0, help="steps between evaluations, for diagnose"
    )
    parser.add_argument(
        "--transfer", nargs="+", default=(), help="collections to search, too"
    )
    parser.add_argument(
        "--mixed",
        nargs="+",
        default=(),
        help="collections to search with all of --only mixed; none of them is cut into passages",
    )
    run(parser.parse_args())


if __name__ == "__main__":
    cli.run(main)
