"""The study's numbers, scored again from the runs that are kept.

    python integrations/pyserini/study/results.py
    python integrations/pyserini/study/results.py --figure study.png

prints a table of all collections, and one of each with every method, from
``runs/reference/study/COLLECTION/SYSTEM.SEED.txt.gz`` (``SYSTEM.txt.gz`` where nothing was
trained), ``costs.SEED.json`` beside them, and ``qrels/reference/study/COLLECTION.txt``, with
``COLLECTION.known.txt``, the topics that ask for a passage which some training topic asks for.
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from dense_hn import DenseHNError, cli, trec
from dense_hn.diagnose import figures
from dense_hn.evaluate import measures, significance
from dense_hn.evaluate.table import UNTRAINED, chance
from dense_hn.files import whole_file

ROOT = Path(__file__).parents[3]
# Under --root.
RUNS, QRELS = "runs/reference/study", "qrels/reference/study"
MEASURES = ("nDCG@10", "RR@10", "R@20")
FIRST = MEASURES[0]
ALTERNATIVE, STATIC, OURS = "sentence-transformers", "star", "star-adore"
# What each collection's row says.
SUMMARY = (*UNTRAINED, ALTERNATIVE, STATIC, OURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What was measured of a system on a collection."""

    # Values [seeds, topics] of each of MEASURES.
    values: Mapping[str, np.ndarray]
    # [topics] whether some training topic asks for a relevant passage of it.
    known: np.ndarray
    # [topics] a number for the passages that are relevant.
    asked: np.ndarray
    # Of each seed: seconds from the corpus to the run, and the most memory on the way.
    seconds: list[float]
    peak_memory_gib: list[float]

    def mean(self, measure: str) -> float:
        """Over topics and seeds."""
        return float(self.values[measure].mean())

    def by_topic(self) -> np.ndarray:
        """[topics] the first measure, each topic's mean over the seeds."""
        return self.values[FIRST].mean(axis=0)

    def on(self, known: bool) -> str:
        """The mean of the first measure on the topics that are known, or are not."""
        return f"{self.values[FIRST][:, self.known == known].mean():.4f}"

    def said(self, measure: str) -> str:
        """The mean, and the spread over the seeds where there are several."""
        means = self.values[measure].mean(axis=1)
        spread = f" ± {means.std(ddof=1):.4f}" if len(means) > 1 else ""
        return f"{means.mean():.4f}{spread}"


def read(root: Path) -> dict[str, dict[str, System]]:
    """Systems of each collection that runs are kept of, best system last."""
    folders = sorted(path for path in (root / RUNS).glob("*") if path.is_dir())
    if not folders:
        raise DenseHNError(f"{root / RUNS}: no runs; study.py makes them")
    return {folder.name: _systems(root, folder) for folder in folders}


def _systems(root: Path, folder: Path) -> dict[str, System]:
    qrels = trec.read_qrels(root / QRELS / f"{folder.name}.txt")
    told = root / QRELS / f"{folder.name}.known.txt"
    listed = set(told.read_text().split()) if told.is_file() else set()
    known = np.array([qid in listed for qid in qrels])
    relevant = [frozenset(trec.positives(qrels, qid)) for qid in qrels]
    numbers = {passages: n for n, passages in enumerate(dict.fromkeys(relevant))}
    asked = np.array([numbers[passages] for passages in relevant])
    costs = [
        json.loads(path.read_text()) for path in sorted(folder.glob("costs.*.json"))
    ]
    runs: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.txt.gz")):
        runs.setdefault(path.name.split(".")[0], []).append(path)
    found = {}
    for system, paths in runs.items():
        scored = [
            measures.score(path.name, qrels, trec.read_run(path), MEASURES).values
            for path in paths
        ]
        spent = [facts[system] for facts in costs if system in facts]
        found[system] = System(
            values={
                measure: np.array([list(values[measure].values()) for values in scored])
                for measure in MEASURES
            },
            known=known,
            asked=asked,
            seconds=[facts["seconds"] for facts in spent],
            peak_memory_gib=[facts["peak_memory_gib"] for facts in spent],
        )
    return dict(sorted(found.items(), key=lambda item: item[1].mean(FIRST)))


def corrected(
    collections: Mapping[str, Mapping[str, System]],
    test: Callable[[System, System], float],
) -> dict[tuple[str, str], float]:
    """p of our difference to what there was before, Holm-corrected over all of them."""
    p = {
        (name, other): test(systems[OURS], systems[other])
        for name, systems in collections.items()
        for other in (*UNTRAINED, ALTERNATIVE)
        if OURS in systems and other in systems
    }
    return dict(zip(p, significance.holm([*p.values()]), strict=True))


def by_topics(ours: System, theirs: System) -> float:
    """p of a paired t-test, each topic's mean over the seeds."""
    return significance.t_test(ours.by_topic(), theirs.by_topic())


def by_passages(ours: System, theirs: System) -> float:
    """p of the mean difference where topics that ask for the same passages go together.

    Such topics are not independent: what is learnt of a passage moves all of them. The
    standard error is that of sums over groups (Liang and Zeger, 1986; with G / (G - 1) and
    G - 1 degrees of freedom), which is the paired t-test where each topic is a group.
    """
    difference = ours.by_topic() - theirs.by_topic()
    around = np.bincount(ours.asked, weights=difference - difference.mean())
    groups = len(around)
    error = math.sqrt(groups / (groups - 1) * (around @ around))
    return float(2 * stats.t.sf(abs(difference.sum()) / error, groups - 1))


def table(collections: Mapping[str, Mapping[str, System]]) -> str:
    """A table of all collections, and one of each, in Markdown."""
    p, grouped = (corrected(collections, test) for test in (by_topics, by_passages))
    lines = [
        f"| {FIRST} | topics | seeds | {' | '.join(map(_title, SUMMARY))} |",
        f"| --- | ---: | ---: |{' --- |' * len(SUMMARY)}",
    ]
    for name, systems in collections.items():
        seeds, topics = max(one.values[FIRST].shape for one in systems.values())
        cells = [
            systems[system].said(FIRST) + _bracket(p, name, system)
            if system in systems
            else ""
            for system in SUMMARY
        ]
        lines.append(f"| {name} | {topics:,} | {seeds} | {' | '.join(cells)} |")
    lines += [
        "",
        (
            "Mean over the topics and seeds, ± the seeds' standard deviation. In brackets: "
            f"p of the difference to {OURS}, whichever is higher: paired t-test on topics, each "
            f"topic's mean over the seeds; Holm-corrected for all {len(p)} comparisons."
        ),
    ]
    against = [
        f"{name} {chance(grouped[name, ALTERNATIVE])}"
        for name in collections
        if (name, ALTERNATIVE) in grouped
    ]
    if against:
        lines += [
            "",
            (
                f"{OURS} against {ALTERNATIVE} with topics that ask for the same passages as "
                f"one group, Holm-corrected likewise: {', '.join(against)}."
            ),
        ]
    for name, systems in collections.items():
        any_of_them = next(iter(systems.values()))
        known, groups = any_of_them.known, len(set(any_of_them.asked))
        asked = "" if groups == len(known) else f", {groups:,} groups"
        # Where there are both kinds.
        kinds = (
            {True: known.sum(), False: (~known).sum()} if 0 < known.mean() < 1 else {}
        )
        names = {True: "known", False: "new"}
        head = [
            *MEASURES,
            *(f"{number:,} {names[kind]}" for kind, number in kinds.items()),
        ]
        lines += [
            f"\n### {name}\n",
            f"{len(known):,} topics{asked}\n",
            f"| | seeds | {' | '.join(head)} | minutes | GiB |",
            f"| --- | ---: |{' ---: |' * (len(head) + 2)}",
        ]
        for system, one in systems.items():
            cells = [str(len(one.values[FIRST])), *map(one.said, MEASURES)]
            cells += map(one.on, kinds)
            cells.append(f"{np.mean(one.seconds) / 60:.1f}" if one.seconds else "")
            cells.append(f"{max(one.peak_memory_gib):.1f}" if one.seconds else "")
            lines.append(f"| {_title(system)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bracket(p: Mapping[tuple[str, str], float], name: str, other: str) -> str:
    return f" ({chance(p[name, other])})" if (name, other) in p else ""


def _title(system: str) -> str:
    return UNTRAINED.get(system, system)


def figure(collections: Mapping[str, Mapping[str, System]], path: Path) -> None:
    """Draw quality against time, a panel for each collection.

    A system whose time is not known is a line.

    Raises:
        DenseHNError: matplotlib is not there.
    """
    figures.require()
    from matplotlib.figure import Figure

    timed = {
        name: systems
        for name, systems in collections.items()
        # Not where others' models searched.
        if any(one.seconds for one in systems.values())
    }
    columns = min(3, len(timed))
    rows = -(-len(timed) // columns)
    drawn = Figure(figsize=(4 * columns, 3.5 * rows + 0.5), layout="constrained")
    panels = drawn.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(timed) :]:
        panel.set_visible(False)
    for panel, (name, systems) in zip(panels, timed.items(), strict=False):
        panel.set(title=name, xlabel="minutes, corpus to run", ylabel=FIRST)
        for system, one in systems.items():
            y, colour, mark, title = one.mean(FIRST), "grey", "x", "other methods"
            if system in SUMMARY:
                colour, mark = f"C{SUMMARY.index(system)}", "o"
                title = _title(system)
            if one.seconds:
                minutes = np.mean(one.seconds) / 60
                panel.plot(minutes, y, mark, color=colour, label=title)
            else:
                panel.axhline(y, color=colour, ls="--", label=f"{title}, untimed")
        panel.set_xlim(left=0)
    legend: dict[str, object] = {}
    for panel in panels:
        for mark, title in zip(*panel.get_legend_handles_labels(), strict=True):
            legend.setdefault(title, mark)
    drawn.legend(
        legend.values(), legend.keys(), loc="outside lower center", ncols=2 * columns
    )
    with whole_file(path) as part:
        drawn.savefig(part, format=path.suffix.removeprefix("."), dpi=120)


def main() -> None:
    """Print the tables from the command line."""
    parser = cli.parser("results.py", __doc__)
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="where runs/ and qrels/ are"
    )
    parser.add_argument("--figure", type=Path, help="a .png, .svg or .pdf to draw")
    args: argparse.Namespace = parser.parse_args()
    collections = read(args.root)
    print(table(collections))
    if args.figure:
        figure(collections, args.figure)


if __name__ == "__main__":
    cli.run(main)
