"""Timings of several ways to do one thing, in one run, and the table of them."""

import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

VERSIONS = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "pyserini")


def medians(
    works: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, float]:
    """Median seconds of each work, of ``repeats`` rounds in which each is done once.

    A round before them is not counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats + 1):
        for name, work in works.items():
            start = now()
            work()
            if number:
                taken[name].append(now() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def now() -> float:
    """Seconds, when all that a GPU was given is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def machine() -> str:
    """The processor, the GPU, and the versions that count."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = names[0] if names else cpu
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    lines = [f"{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; {gpu}"]
    found = [f"Python {platform.python_version()}"]
    for name in VERSIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout
    return "\n".join(
        [*lines, ", ".join(found), f"commit {commit.strip() or 'unknown'}"]
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers to three significant digits."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        aligned = [row[0].ljust(widths[0])]
        aligned += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append(f"| {' | '.join(aligned)} |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, f"| {' | '.join(rule)} |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    digits = max(0, 2 - len(str(int(abs(value)))) + 1)
    return f"{value:,.{digits}f}"
