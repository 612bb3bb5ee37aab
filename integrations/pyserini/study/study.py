"""Every method of study.yaml, and sentence-transformers, on real collections.

    python integrations/pyserini/study/study.py run --collections DIR --output DIR
    python integrations/pyserini/study/study.py table [--root DIR]

``run`` trains on each collection, in BEIR's layout under ``--collections`` (pydoc is made),
with each seed, all methods with one budget. ``--output`` gets a folder for each collection and
seed, as recipes write them, with the recipe itself, and what ``table`` reads:
``runs/reference/study/COLLECTION/SYSTEM.SEED.txt.gz`` and
``qrels/reference/study/COLLECTION.txt``. With ``--split dev``, by which settings are
chosen, nothing is kept for ``table``.
"""

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from dense_hn import DenseHNError, cli, trec
from dense_hn.collections.corpus import read_corpus
from dense_hn.encode import Vectors, encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.evaluate import measures, significance
from dense_hn.files import whole_file
from dense_hn.mine import mine
from dense_hn.train import recipe
from dense_hn.train.pipeline import UNTRAINED, Pipeline

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
# Under --output, and in this repository.
RUNS, QRELS = "runs/reference/study", "qrels/reference/study"
MEASURES = ("nDCG@10", "RR@10", "R@20")
# Hits of a topic in the runs that are kept.
DEPTH = 20
SEEDS = (42, 43, 44)
# The collection that is made here.
PYDOC = "pydoc"
ALTERNATIVE, OURS = "sentence-transformers", "star-adore"


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
    # Steps of sentence-transformers.
    alternative: int


BUDGETS = {
    "nl2bash": Budget(
        length=128, cut=64, batch=32, warmup=100, steps=200, adore=300, alternative=400
    ),
}


def filled(
    name: str, source: Mapping, seed: int, split: str, stages: Sequence[str]
) -> dict:
    """study.yaml for a collection and a seed, with these stages; all, if none is named."""
    budget = BUDGETS[name]
    sections = yaml.safe_load((HERE / "study.yaml").read_text(encoding="utf-8"))
    fixed = {key: sections.pop(key) for key in ("encoder", "evaluate")}
    fixed["encoder"] |= {"passage_length": budget.length}
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
            "per_device_train_batch_size": budget.batch,
            "seed": seed,
        }
        if not query_side:
            trainings[stage]["passage_length"] = budget.cut
    fixed["evaluate"] |= {"topics": split}
    return {"collection": dict(source), **fixed, **trainings}


def run(args: argparse.Namespace) -> None:
    """Train and evaluate, one collection and seed after another."""
    for name in args.only or BUDGETS:
        for seed in args.seeds:
            source = {"beir": str(args.collections / name)}
            if name == PYDOC:
                source = {PYDOC: ["stdlib"]}
            root = args.output / name / str(seed)
            root.mkdir(parents=True, exist_ok=True)
            sections = filled(name, source, seed, args.split, args.stages)
            path = root / "study.yaml"
            path.write_text(yaml.safe_dump(sections, sort_keys=False))
            pipeline = Pipeline(recipe.read(str(path)), root)
            add_alternative(pipeline, BUDGETS[name], seed)
            pipeline.run()
            print(pipeline.report())
            if args.split == "test":
                keep(pipeline, args.output, name, seed)


def add_alternative(pipeline: Pipeline, budget: Budget, seed: int) -> None:
    """Declare the training and the run of sentence-transformers."""
    options = {
        "max_steps": budget.alternative,
        "passage_length": budget.cut,
        "batch_size": budget.batch,
        "seed": seed,
    }
    folder = pipeline.model(ALTERNATIVE)
    code = (HERE / "alternative.py").read_text(encoding="utf-8")
    pipeline.ledger.add(
        ALTERNATIVE,
        partial(train_alternative, pipeline, folder, options),
        [folder],
        [options, code],
        after=["collection", "base"],
    )
    pipeline.ledger.add(
        f"{ALTERNATIVE}.{pipeline.split}",
        partial(search_alternative, pipeline, folder),
        [pipeline.hits(ALTERNATIVE, pipeline.split)],
        after=[ALTERNATIVE],
    )


def train_alternative(pipeline: Pipeline, folder: Path, options: Mapping) -> None:
    """Train in a process of its own, as a user would."""
    command = [sys.executable, str(HERE / "alternative.py")]
    command += ["--collection", str(pipeline.collection), "--output", str(folder)]
    command += ["--encoder", str(pipeline.model("base"))]
    command += [word for key, v in options.items() for word in (f"--{key}", str(v))]
    if subprocess.run(command, check=False).returncode:
        raise DenseHNError(f"failed: {' '.join(command)}")


def search_alternative(pipeline: Pipeline, folder: Path) -> None:
    """Its run, by the same search as all others."""
    names = "query_length", "passage_length"
    lengths = {name: pipeline.encoder_settings[name] for name in names}
    encoder = DenseEncoder.load(str(folder), **lengths)
    vectors = pipeline.vectors(ALTERNATIVE)
    encode_corpus(encoder, read_corpus(pipeline.corpus), vectors)
    split = pipeline.split
    topics, output = pipeline.topics(split), pipeline.hits(ALTERNATIVE, split)
    hits = pipeline.recipe.evaluate.hits
    mine(encoder, Vectors.load(vectors), topics, hits, output, ALTERNATIVE)


def keep(pipeline: Pipeline, output: Path, name: str, seed: int) -> None:
    """Copy what the table is made from."""
    for system in [*UNTRAINED, *pipeline.trainings, ALTERNATIVE]:
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
    qrels = output / QRELS / f"{name}.txt"
    qrels.parent.mkdir(parents=True, exist_ok=True)
    trec.write_qrels(qrels, trec.read_qrels(pipeline.judged(pipeline.split)))
    ledger = json.loads((pipeline.work / "stages.json").read_text())
    costs = {
        stage: {key: facts[key] for key in ("seconds", "peak_memory_gib")}
        for stage, facts in ledger.items()
    }
    with whole_file(output / RUNS / name / f"costs.{seed}.json") as part:
        part.write_text(json.dumps(costs, indent=2) + "\n")


def table(args: argparse.Namespace) -> None:
    """Print the table of every collection that there are runs of."""
    folders = sorted(path for path in (args.root / RUNS).glob("*") if path.is_dir())
    if not folders:
        raise DenseHNError(f"{args.root / RUNS}: no runs; `study.py run` makes them")
    scored = {folder.name: scores(args.root, folder.name) for folder in folders}
    p = corrected(scored)
    for name, systems in scored.items():
        topics = len(next(iter(systems.values()))[MEASURES[0]][0])
        print(f"\n### {name}, {topics:,} topics\n")
        print(f"| | seeds | {' | '.join(MEASURES)} | p |")
        print(f"| --- | ---: |{' ---: |' * len(MEASURES)} ---: |")
        for system, values in systems.items():
            cells = [said(values[measure]) for measure in MEASURES]
            seeds = len(values[MEASURES[0]])
            chance = f"{p[name, system]:.3f}" if (name, system) in p else ""
            title = UNTRAINED.get(system, system)
            print(f"| {title} | {seeds} | {' | '.join(cells)} | {chance} |")
    print(
        f"\nMean over the topics and seeds, ± the seeds' standard deviation. p: {OURS} "
        f"against that row in {MEASURES[0]}, paired t-test on topics, each topic's mean "
        f"over the seeds; Holm-corrected for all {len(p)} comparisons."
    )


def scores(root: Path, name: str) -> dict[str, dict[str, np.ndarray]]:
    """Values [seeds, topics] of each measure for each system, best system last."""
    qrels = trec.read_qrels(root / QRELS / f"{name}.txt")
    found: dict[str, dict[str, list]] = {}
    for path in sorted((root / RUNS / name).glob("*.txt.gz")):
        system = path.name.split(".")[0]
        values = measures.score(path.name, qrels, trec.read_run(path), MEASURES).values
        rows = found.setdefault(system, {measure: [] for measure in MEASURES})
        for measure in MEASURES:
            rows[measure].append(list(values[measure].values()))
    made = {
        system: {measure: np.array(v) for measure, v in rows.items()}
        for system, rows in found.items()
    }
    return dict(sorted(made.items(), key=lambda item: item[1][MEASURES[0]].mean()))


def corrected(
    scored: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
) -> dict[tuple[str, str], float]:
    """p of our difference to the alternative, BM25 and the untrained encoder."""
    p = {}
    for name, systems in scored.items():
        if OURS not in systems:
            continue
        ours = systems[OURS][MEASURES[0]].mean(axis=0)
        for system in (ALTERNATIVE, *UNTRAINED):
            theirs = systems[system][MEASURES[0]].mean(axis=0)
            p[name, system] = significance.t_test(ours, theirs)
    return dict(zip(p, significance.holm([*p.values()]), strict=True))


def said(values: np.ndarray) -> str:
    """Mean of [seeds, topics], and the spread over the seeds where there are several."""
    means = values.mean(axis=1)
    spread = f" ± {means.std(ddof=1):.4f}" if len(means) > 1 else ""
    return f"{means.mean():.4f}{spread}"


def main() -> None:
    """Run the study, or print its table, from the command line."""
    parser = cli.parser("study.py", __doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run", help="train and evaluate")
    one.set_defaults(work=run)
    one.add_argument("--collections", type=Path, required=True, help="BEIR folders")
    one.add_argument("--output", type=Path, required=True, help="folder to write")
    one.add_argument("--only", nargs="+", choices=BUDGETS, help="default: all")
    one.add_argument("--stages", nargs="+", default=(), help="of study.yaml (all)")
    one.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    one.add_argument("--split", default="test", help="dev to choose settings by")
    one = commands.add_parser("table", help="score the kept runs again")
    one.set_defaults(work=table)
    one.add_argument(
        "--root", type=Path, default=ROOT, help="where runs/ and qrels/ are"
    )
    args = parser.parse_args()
    args.work(args)


if __name__ == "__main__":
    cli.run(main)
