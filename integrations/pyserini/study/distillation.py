"""When a teacher helps: labels, a teacher's scores, and both, with few and many topics.

    python integrations/pyserini/study/distillation.py --collection DIR \\
        --teacher teacher.train.txt --output DIR

runs distillation.yaml with each number of the collection's training topics, and writes
``table.md`` and ``figure.png``. ``--output`` gets a folder for each number, as recipes write
them, with the collection folder that it is run on, and finished stages are skipped.
"""

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import yaml
from study import declared

from dense_hn import DenseHNError, cli, trec
from dense_hn.collections import collection
from dense_hn.collections.collection import TEST, TRAIN
from dense_hn.diagnose import figures
from dense_hn.evaluate import measures, significance
from dense_hn.evaluate.table import chance
from dense_hn.files import whole_file

RECIPE = Path(__file__).with_suffix(".yaml")
MEASURE = "nDCG@10"
SEED = 42
# The stages that have labels alone, which the others' names begin with.
LABELLED = ("star", "adore")
UNTRAINED = "untrained"
# By system and number of training topics: each test topic's value.
Values = dict[str, dict[int, np.ndarray]]


def study(args: argparse.Namespace) -> None:
    """Train with each number of topics, score, and write the table and the figure.

    Raises:
        DenseHNError: a file that cannot be read; no judged topics of train or test; more
            topics than there are; matplotlib is not there; what recipes raise.
    """
    figures.require()
    whole = collection.read(args.collection)
    for split in (TRAIN, TEST):
        if not (whole.topics.get(split) and whole.qrels.get(split)):
            raise DenseHNError(f"{args.collection}: no judged topics of {split}")
    whole = replace(whole, runs={"teacher": {TRAIN: trec.read_run(args.teacher)}})
    topics = list(whole.topics[TRAIN])
    numbers = sorted({*args.numbers, len(topics)})
    if not 1 <= numbers[0] <= numbers[-1] <= len(topics):
        raise DenseHNError(f"--numbers: from 1 to {len(topics)}, all training topics")
    # One order for all, so that the fewer are among the more.
    order = Random(f"{SEED} topics").sample(topics, len(topics))
    values: Values = {}
    for number in numbers:
        part = reduced(whole, {*order[:number]})
        for system, found in run(part, args.output / str(number)).items():
            values.setdefault(system, {})[number] = found
    text = table(values)
    with whole_file(args.output / "table.md") as partial:
        partial.write_text(f"{text}\n", encoding="utf-8")
    draw(values, args.output / "figure.png")
    print(text)


def reduced(whole: collection.Collection, kept: set[str]) -> collection.Collection:
    """The collection with these training topics, and its test topics."""
    topics, qrels = (
        {split: of[split] for split in (TRAIN, TEST)}
        for of in (whole.topics, whole.qrels)
    )
    for of in (topics, qrels):
        of[TRAIN] = {qid: one for qid, one in of[TRAIN].items() if qid in kept}
    return replace(whole, topics=topics, qrels=qrels)


def run(part: collection.Collection, folder: Path) -> dict[str, np.ndarray]:
    """Run the recipe; each test topic's value, of every dense system."""
    collection.write(part, folder / "collection")
    sections = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    given = {"collection": {"folder": str(folder / "collection")}}
    pipeline = declared(folder / RECIPE.name, given | sections)
    pipeline.run()
    print(pipeline.report())
    values, shown = {}, {UNTRAINED: "base"} | {n: n for n in pipeline.trainings}
    for name, system in shown.items():
        found = trec.read_run(pipeline.hits(system, TEST))
        scored = measures.per_query(part.qrels[TEST], found, [MEASURE])[MEASURE]
        values[name] = np.array([*scored.values()])
    return values


def table(values: Values) -> str:
    """The means, in Markdown, with what each has more than labels alone."""
    numbers = list(values[UNTRAINED])
    taught = [name for name in values if name not in (UNTRAINED, *LABELLED)]
    tested = [
        significance.t_test(values[name][number], values[labelled(name)][number])
        for name in taught
        for number in numbers
    ]
    p = dict(zip(product(taught, numbers), significance.holm(tested), strict=True))
    lines = [
        f"| {MEASURE} | {' | '.join(f'{number:,} topics' for number in numbers)} |",
        f"| --- |{' --- |' * len(numbers)}",
    ]
    for name, of in values.items():
        cells = []
        for number, found in of.items():
            cells.append(f"{found.mean():.4f}")
            if name in taught:
                more = found.mean() - values[labelled(name)][number].mean()
                cells[-1] += f" ({more:+.4f}, {chance(p[name, number])})"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    note = (
        f"{len(values[UNTRAINED][numbers[0]])} test topics. In brackets: what it has more than star or adore, which have "
        "labels alone, with as many topics, and p of a paired t-test, Holm-corrected for all "
        f"{len(p)}."
    )
    return "\n".join([*lines, "", note])


def labelled(system: str) -> str:
    """The system that has the labels alone."""
    return system.partition("-")[0]


def draw(values: Values, path: Path) -> None:
    """A panel for both sides and one for the query side; a line for each way."""
    from matplotlib.figure import Figure

    numbers = list(values[UNTRAINED])
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(LABELLED), sharey=True)
    for panel, side in zip(panels, LABELLED, strict=True):
        for name, of in values.items():
            if labelled(name) == side:
                means = [found.mean() for found in of.values()]
                panel.plot(numbers, means, "o-", label=name)
        panel.axhline(
            values[UNTRAINED][numbers[0]].mean(), color="grey", ls="--", label=UNTRAINED
        )
        panel.set(xscale="log", xlabel="training topics")
        panel.set_xticks(numbers, [f"{number:,}" for number in numbers])
        panel.minorticks_off()
        panel.legend()
    panels[0].set_ylabel(MEASURE)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def main() -> None:
    """Make the study from the command line."""
    parser = cli.parser("distillation.py", __doc__)
    parser.add_argument(
        "--collection", required=True, help="folder, as dense_hn.collections writes it"
    )
    parser.add_argument(
        "--teacher",
        required=True,
        help="run of its training topics, their relevant documents among the hits",
    )
    parser.add_argument(
        "--numbers",
        type=int,
        nargs="+",
        default=[100, 1000],
        help="of training topics, besides all (100 1000)",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    study(parser.parse_args())


if __name__ == "__main__":
    cli.run(main)
