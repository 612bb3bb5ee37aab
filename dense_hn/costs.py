"""Where the time and memory of a stage go.

A stage opens a :class:`Costs`; whatever runs inside says what it is at with
:func:`part`. Time is counted once, in the innermost part. On a GPU it is the GPU's own:
what the host does meanwhile costs nothing, and where the GPU waits for the host, the
part that it waits in pays.
"""

import json
import logging
import re
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dense_hn.files import whole_file

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("dense_hn")

# Stages that are open, a recipe's around a command's.
_open: list["Costs"] = []
# What is not in any part.
OTHER = "other"
# Marks of a GPU that are kept before they are added up, which waits for it.
MARKS = 1000


class Costs:
    """Seconds by part, steps, padding and peak memory of what runs in its block."""

    def __init__(self) -> None:
        # BM25 does without torch, which takes seconds to import.
        torch = sys.modules.get("torch")
        self._cuda = torch.cuda if torch and torch.cuda.is_available() else None
        self._seconds: dict[str, float] = {}
        # When each part began, until they are added up.
        self._marks: list[tuple[Any, str]] = []
        self._parts = [OTHER]
        self._steps = 0
        self._kept = self._padded = 0
        self._wall = 0.0
        # Seconds by part, steps and tokens that lately() has told.
        self._told: tuple[dict[str, float], int, int, int] = ({}, 0, 0, 0)
        # Bytes that were allocated on the GPU at most, of what was seen so far.
        self.gpu_peak = 0

    def __enter__(self) -> Self:
        if self._cuda:
            _see_peak(self._cuda)
            self._cuda.reset_peak_memory_stats()
        _open.append(self)
        self._start = time.perf_counter()
        self._mark()
        return self

    def __exit__(self, *_: object) -> None:
        self._mark()
        self._add_up()
        self._wall = time.perf_counter() - self._start
        if self._cuda:
            _see_peak(self._cuda)
        _open.remove(self)

    def enter(self, name: str) -> None:
        """Begin a part; the one around it waits."""
        self._parts.append(name)
        self._mark()

    def leave(self) -> None:
        """End the innermost part."""
        self._parts.pop()
        self._mark()

    def step(self) -> None:
        """Count a step."""
        self._steps += 1

    def count(self, mask: "Tensor") -> None:
        """Count the tokens and the padding of an attention mask."""
        # A tensor, so that a GPU need not be waited for.
        self._kept = mask.sum() + self._kept
        self._padded += mask.numel()

    def _mark(self) -> None:
        if self._cuda:
            mark = self._cuda.Event(enable_timing=True)
            mark.record()
        else:
            mark = time.perf_counter()
        self._marks.append((mark, self._parts[-1]))
        if len(self._marks) > MARKS:
            self._add_up()

    def _add_up(self) -> None:
        if self._cuda:
            self._marks[-1][0].synchronize()
        for (start, name), (end, _) in zip(self._marks, self._marks[1:], strict=False):
            seconds = start.elapsed_time(end) / 1000 if self._cuda else end - start
            self._seconds[name] = self._seconds.get(name, 0) + seconds
        del self._marks[:-1]

    def lately(self) -> dict[str, float]:
        """Of the steps since the last call, while the block runs.

        ``seconds/PART`` of a step, and ``padding_share`` as in :meth:`facts`.
        """
        self._mark()
        self._add_up()
        seconds, steps, kept, padded = self._told
        told = {
            f"seconds/{name}": round((total - seconds.get(name, 0)) / took, 4)
            for took in [max(self._steps - steps, 1)]
            for name, total in sorted(self._seconds.items())
        }
        if self._padded > padded:
            share = 1 - (int(self._kept) - kept) / (self._padded - padded)
            told["padding_share"] = round(share, 3)
        self._told = (
            dict(self._seconds),
            self._steps,
            int(self._kept),
            self._padded,
        )
        return told

    def facts(self) -> dict[str, Any]:
        """The figures, as JSON, once the block has ended.

        ``seconds``; ``steps`` and ``seconds_per_step`` where there were steps;
        ``shares`` of each part of the time; ``padding_share`` of what went through the
        encoder, where anything did; ``peak_memory_gib``, the most this process has held
        so far; ``peak_gpu_memory_gib`` of the block.
        """
        facts: dict[str, Any] = {"seconds": round(self._wall, 3)}
        if self._steps:
            facts["steps"] = self._steps
            facts["seconds_per_step"] = round(self._wall / self._steps, 4)
        total = sum(self._seconds.values()) or 1
        facts["shares"] = {
            name: round(seconds / total, 3)
            for name, seconds in sorted(self._seconds.items())
        }
        if self._padded:
            facts["padding_share"] = round(1 - int(self._kept) / int(self._padded), 3)
        facts["peak_memory_gib"] = round(_peak() / 2**30, 2)
        if self._cuda:
            facts["peak_gpu_memory_gib"] = round(self.gpu_peak / 2**30, 2)
        return facts


def _see_peak(cuda: Any) -> None:
    """Let all stages that are open know the GPU's peak, before it is forgotten."""
    for stage in _open:
        stage.gpu_peak = max(stage.gpu_peak, cuda.max_memory_allocated())


def _peak() -> int:
    """The most bytes that this process has held in memory."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux's getrusage counts what the process that started this one held.
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def enter(name: str) -> None:
    """Begin a part in every stage that is open; the one around it waits."""
    for stage in _open:
        stage.enter(name)


def leave() -> None:
    """End the innermost part of every stage that is open."""
    for stage in _open:
        stage.leave()


@contextmanager
def part(name: str) -> Iterator[None]:
    """Count what runs in this block as ``name``."""
    enter(name)
    try:
        yield
    finally:
        leave()


def step() -> None:
    """Count a step of training in every stage that is open."""
    for stage in _open:
        stage.step()


def count(mask: "Tensor") -> None:
    """Count the tokens and the padding of an attention mask in every stage that is open."""
    for stage in _open:
        stage.count(mask)


def write(path: Path, facts: Mapping[str, Any], name: str) -> None:
    """Write :meth:`Costs.facts` as JSON, and say them of ``name``."""
    log.info("%s: %s", name, in_words(facts))
    with whole_file(path) as partial:
        partial.write_text(json.dumps(facts, indent=2) + "\n")


def in_words(facts: Mapping[str, Any]) -> str:
    """:meth:`Costs.facts` in one line."""
    said = f"{facts['seconds']:,.1f} s"
    if "steps" in facts:
        said += f", {facts['steps']:,} steps of {facts['seconds_per_step']:.3g} s"
    peak = f"peak memory {facts['peak_memory_gib']:.1f} GiB"
    if "peak_gpu_memory_gib" in facts:
        peak += f", on the GPU {facts['peak_gpu_memory_gib']:.1f}"
    return f"{said}: {shares_in_words(facts)}; {peak}"


def shares_in_words(facts: Mapping[str, Any]) -> str:
    """The shares of :meth:`Costs.facts` that are 1% at least, largest first."""
    shares = sorted(facts["shares"].items(), key=lambda item: -item[1])
    parts = [f"{name} {share:.0%}" for name, share in shares if share >= 0.01]
    if "padding_share" in facts:
        parts.append(f"{facts['padding_share']:.0%} of tokens padding")
    return ", ".join(parts)
