"""Differences between runs, and whether they are more than chance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dense_hn.evaluate.measures import Scored

# Of the randomisation test.
FLIPS = 10_000
SEED = 42


def t_test(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Two-sided p of the paired t-test; 1 where no topic differs.

    Args:
        ours: (topics,), float64.
        theirs: the same topics.
    """
    if len(ours) < 2 or np.array_equal(ours, theirs):
        return 1.0
    # A second, and 20 MB of a training's memory.
    from scipy.stats import ttest_rel

    return float(ttest_rel(ours, theirs).pvalue)


def randomisation_test(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Two-sided p of Fisher's paired randomisation test on the mean.

    Where there is no difference between the runs, each topic's could as well have had
    the other sign. All signs are tried where there are at most ``FLIPS`` ways (13 topics
    that differ), else ``FLIPS`` ways drawn with ``SEED``; arguments as in :func:`t_test`.
    """
    from scipy.stats import permutation_test

    differences = ours - theirs
    # The others have no sign.
    differences = differences[differences != 0]
    if len(differences) < 2:
        return 1.0
    found = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=FLIPS,
        # 50 MB for 7,000 topics, and about as fast as any larger one.
        batch=100,
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)


@dataclass(frozen=True, slots=True)
class Test:
    """A test, and what a table says of it."""

    p: Callable[[np.ndarray, np.ndarray], float]
    name: str


TESTS = {
    "t": Test(t_test, "paired t-test"),
    "randomisation": Test(
        randomisation_test,
        f"paired randomisation test ({FLIPS:,} sign flips, or all; seed {SEED})",
    ),
}


def holm(p: Sequence[float]) -> list[float]:
    """The p-values of a family of comparisons, corrected for their number.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes
    smaller than one before it, or larger than 1 (Holm 1979).
    """
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.asarray(p)[order] * factors)
    return np.minimum(corrected, 1).tolist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A run's mean of a measure, and how it compares; None where it is not compared."""

    mean: float
    difference: float | None
    # As the test gives it, and corrected.
    p: float | None
    p_holm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A run; ``missing`` and ``unjudged`` as in Scored."""

    name: str
    # The run that it is compared with.
    against: str | None
    missing: int
    unjudged: int
    # By measure.
    cells: dict[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a table shows."""

    topics: int
    # The run that all others are compared with; None where each is with the row above.
    baseline: str | None
    test: str
    # In each measure; what Holm's correction is for.
    comparisons: int
    rows: list[Row]


def compare(
    runs: Sequence[Scored], test: str = "t", baseline: str | None = None
) -> Comparison:
    """Mean of every measure for every run, against another run.

    Args:
        runs: scored with the same qrels and measures, in the order of the table.
        test: one of ``TESTS``.
        baseline: the run that all others are compared with; default: each run with the
            one before it.
    """
    names = [run.name for run in runs]
    if baseline is None:
        against = {below: above for above, below in pairwise(names)}
    else:
        against = {name: baseline for name in names if name != baseline}
    cells: dict[str, dict[str, Cell]] = {name: {} for name in names}
    for measure in runs[0].values:
        values = {run.name: np.array([*run.values[measure].values()]) for run in runs}
        p = {
            ours: TESTS[test].p(values[ours], values[theirs])
            for ours, theirs in against.items()
        }
        corrected = dict(zip(p, holm([*p.values()]), strict=True))
        for name in names:
            difference = None
            if name in against:
                difference = float((values[name] - values[against[name]]).mean())
            cells[name][measure] = Cell(
                mean=float(values[name].mean()),
                difference=difference,
                p=p.get(name),
                p_holm=corrected.get(name),
            )
    rows = [
        Row(
            name=run.name,
            against=against.get(run.name),
            missing=run.missing,
            unjudged=run.unjudged,
            cells=cells[run.name],
        )
        for run in runs
    ]
    return Comparison(
        topics=len(values[names[0]]),
        baseline=baseline,
        test=TESTS[test].name,
        comparisons=len(against),
        rows=rows,
    )
