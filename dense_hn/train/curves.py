"""Training curves side by side: what evaluation while training measured, in one table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dense_hn import DenseHNError, reading

PREFIX = "eval_"


def read(log: str | Path, prefix: str = PREFIX) -> dict[str, dict[int, Any]]:
    """Measure to step to value, of a log that a training left beside its encoder.

    Args:
        log: file.
        prefix: of the entries that are read, without which they are named; empty for all
            that was logged.

    Raises:
        DenseHNError: it is no such file.
    """
    curves: dict[str, dict[str, Any]] = {}
    for where, line in reading.lines(log, "log of a training"):
        entry = reading.parsed(line, where)
        if not isinstance(entry.get("step"), int):
            raise DenseHNError(
                f"{where}: has no step; name the log.jsonl that a training wrote"
            )
        for name, value in entry.items():
            if name.startswith(prefix):
                if prefix and not isinstance(value, int | float):
                    raise DenseHNError(f"{where}: {name} is {value!r}, not a number")
                curves.setdefault(name.removeprefix(prefix), {})[entry["step"]] = value
    return curves


def table(curves: Mapping[str, Mapping[str, Mapping[int, float]]]) -> str:
    """A block a measure: a row a training, a column a step; the best starred.

    Step 0 is what a training started from, and never kept.

    Args:
        curves: name of a training to its curves, as :func:`read`.
    """
    measures = dict.fromkeys(m for measured in curves.values() for m in measured)
    width = max(map(len, [*curves, *measures]))
    blocks = []
    for measure in measures:
        rows = {name: measured.get(measure, {}) for name, measured in curves.items()}
        steps = sorted({step for row in rows.values() for step in row})
        lines = [
            f"{measure:{width}}" + "".join(f"  {step:>6} " for step in steps).rstrip()
        ]
        for name, row in rows.items():
            kept = [value for step, value in row.items() if step]
            best = max(kept, default=None)
            cells = [_cell(row.get(step), best) for step in steps]
            lines.append(f"{name:{width}}{''.join(cells)}".rstrip())
        blocks.append("\n".join(lines))
    note = "Columns are steps of each training; * is the best."
    return "\n\n".join([*blocks, note])


def _cell(value: float | None, best: float | None) -> str:
    mark = "*" if value == best else " "
    return " " * 9 if value is None else f"  {value:.4f}{mark}"
