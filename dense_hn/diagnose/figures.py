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
    and SVG.

    Args:
        folder: to write into.
        errors: by system and topic, relevant docid to T.
        ranks: by system and topic, where static negatives stand.
        curves: by system and measure, step to value.
    """
    from matplotlib.figure import Figure

    def panel(title: str, x: str, y: str) -> tuple:
        drawn = Figure(figsize=(6, 4), layout="constrained")
        axes = drawn.subplots()
        axes.set(title=title, xlabel=x, ylabel=y, xscale="log", ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        return drawn, axes

    drawn, axes = panel(
        "Pairwise errors",
        "share of the queries, those with most errors first",
        "share of all pairwise errors",
    )
    for name, of in errors.items():
        worst = np.sort([sum(pairs.values()) for pairs in of])[::-1].astype(float)
        shares = np.arange(1, len(worst) + 1) / len(worst)
        axes.plot(shares, worst.cumsum() / max(worst.sum(), 1), label=name)
    _save(drawn, axes, folder / "errors")
    if ranks:
        drawn, axes = panel(
            "Static negatives",
            "rank among the passages that are not relevant",
            "share of the static negatives up to it",
        )
        for name, of in ranks.items():
            every, numbers = np.unique(np.concatenate(of), return_counts=True)
            axes.plot(every, numbers.cumsum() / numbers.sum(), label=name)
        _save(drawn, axes, folder / "negatives")
    if curves:
        measures = list(dict.fromkeys(m for of in curves.values() for m in of))
        # A row for each set of topics: the measures of the dev topics come first.
        columns = sum(not m.startswith(TRAIN) for m in measures) or len(measures)
        rows = -(-len(measures) // columns)
        drawn = Figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
        panels = drawn.subplots(rows, columns, squeeze=False).flat
        for axes, measure in zip(panels, measures, strict=False):
            axes.set(title=measure, xlabel="step")
            axes.grid(alpha=0.3)
            for place, (name, of) in enumerate(curves.items()):
                steps = of.get(measure, {})
                values = [*steps.values()]
                axes.plot([*steps], values, ".-", color=f"C{place}", label=name)
        _save(drawn, axes, folder / "curves")


def _save(drawn, axes, path: Path) -> None:
    from matplotlib import rc_context

    axes.legend()
    # Without ids and a date of the moment, so that the same figure is the same file.
    with rc_context({"svg.hashsalt": path.name}):
        drawn.savefig(path.with_suffix(".png"), dpi=120)
        drawn.savefig(path.with_suffix(".svg"), metadata={"Date": None})
