"""What a diagnosis counted, drawn."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dense_hn import DenseHNError

# What the names of measures of training topics begin with, in train.evaluation.
TRAIN = "train_"


def require() -> None:
    """Raise a DenseHNError where matplotlib is not there."""
    if importlib.util.find_spec("matplotlib") is None:
        raise DenseHNError("figures need matplotlib: pip install matplotlib")


def draw(
    folder: Path,
    errors: Mapping[str, Sequence[Mapping[str, int]]],
    ranks: Mapping[str, Sequence[Sequence[int]]],
    curves: Mapping[str, Mapping[str, Mapping[int, float]]],
) -> None:
    """Write ``errors``, and ``negatives`` and ``curves`` where there are any, each as PNG
    and SVG. A system has one colour in all of them.

    Args:
        folder: to write into.
        errors: by system and topic, relevant docid to T.
        ranks: by system and topic, where static negatives stand.
        curves: by system and measure, step to value.
    """
    names = dict.fromkeys([*errors, *curves])
    colours = {name: f"C{place}" for place, name in enumerate(names)}
    shares = {}
    for name, of in errors.items():
        worst = np.sort([sum(pairs.values()) for pairs in of])[::-1].astype(float)
        part = np.arange(1, len(worst) + 1) / len(worst)
        shares[name] = part, worst.cumsum() / max(worst.sum(), 1)
    _one(
        folder / "errors",
        shares,
        colours,
        title="Pairwise errors",
        xlabel="share of the queries, those with most errors first",
        ylabel="share of all pairwise errors",
    )
    if ranks:
        standing = {}
        for name, of in ranks.items():
            every, numbers = np.unique(np.concatenate(of), return_counts=True)
            standing[name] = every, numbers.cumsum() / numbers.sum()
        _one(
            folder / "negatives",
            standing,
            colours,
            title="Static negatives",
            xlabel="rank among the passages that are not relevant",
            ylabel="share of the static negatives up to it",
        )
    if curves:
        draw_curves(folder / "curves", curves, colours)


def _one(
    path: Path, lines: Mapping[str, tuple], colours: Mapping[str, str], **texts: str
) -> None:
    """A figure of shares, by what is on a logarithmic axis."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6, 4), layout="constrained")
    axes = drawn.subplots()
    axes.set(xscale="log", ylim=(0, 1.02), **texts)
    axes.grid(alpha=0.3)
    for name, (x, y) in lines.items():
        axes.plot(x, y, color=colours[name], label=name)
    axes.legend()
    _save(drawn, path)


def draw_curves(
    path: Path,
    curves: Mapping[str, Mapping[str, Mapping[int, float]]],
    colours: Mapping[str, str],
) -> None:
    """A panel a measure; a row for each set of topics, dev's first."""
    from matplotlib.figure import Figure

    measures = list(dict.fromkeys(m for of in curves.values() for m in of))
    measures.sort(key=lambda measure: measure.startswith(TRAIN))
    columns = sum(not m.startswith(TRAIN) for m in measures) or len(measures)
    rows = -(-len(measures) // columns)
    drawn = Figure(figsize=(4 * columns, 3 * rows + 0.5), layout="constrained")
    panels = drawn.subplots(rows, columns, squeeze=False).flat
    for axes, measure in zip(panels, measures, strict=False):
        axes.set(title=measure, xlabel="step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        for name, of in curves.items():
            steps = of.get(measure, {})
            values = [*steps.values()]
            axes.plot([*steps], values, ".-", color=colours[name], label=name)
    named = axes.get_legend_handles_labels()
    drawn.legend(*named, loc="outside upper center", ncols=len(curves))
    _save(drawn, path)


def _save(drawn, path: Path) -> None:
    from matplotlib import rc_context

    # Without ids and a date of the moment, so that the same figure is the same file.
    with rc_context({"svg.hashsalt": path.name}):
        drawn.savefig(path.with_suffix(".png"), dpi=120)
        drawn.savefig(path.with_suffix(".svg"), metadata={"Date": None})
