"""Runs stages once: a finished stage whose inputs are the same is skipped."""

import hashlib
import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dense_hn import __version__
from dense_hn.files import whole_file


class Ledger:
    """The stages of one recipe in a JSON file: what each was made from, and its cost.

    A stage is known by a key, the digest of its settings, of the keys of the stages
    that it builds on, and of this package's version. It is skipped when the ledger
    holds that key and its outputs exist.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._records = json.loads(ledger.read_text()) if ledger.exists() else {}
        self._keys: dict[str, str] = {}
        self._skipped: set[str] = set()

    def run(
        self,
        name: str,
        work: Callable[[], None],
        outputs: Sequence[Path],
        settings: Any = None,
        *,
        after: Sequence[str] = (),
    ) -> None:
        """Do ``work`` unless it was done.

        Args:
            name: of the stage, unique in a recipe.
            work: makes all of ``outputs``, each appearing only when whole.
            outputs: files and folders.
            settings: what it depends on, as JSON.
            after: names of the earlier stages whose outputs it reads.
        """
        made_from = [
            __version__,
            name,
            settings,
            [self._keys[stage] for stage in after],
        ]
        key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
        self._keys[name] = key
        done = self._records.get(name, {}).get("key") == key
        if done and all(output.exists() for output in outputs):
            self._skipped.add(name)
            return
        tqdm.write(f"── {name}")
        # Forgotten first: a stage that is interrupted may leave outputs of two makings.
        if self._records.pop(name, None):
            self._write()
        start = time.monotonic()
        work()
        seconds = time.monotonic() - start
        self._records[name] = {"key": key, "seconds": round(seconds, 1)}
        self._write()

    def _write(self) -> None:
        with whole_file(self._ledger) as partial:
            partial.write_text(json.dumps(self._records, indent=2) + "\n")

    def summary(self) -> str:
        """Seconds of every stage, and the most memory this process has held."""
        lines = ["stage             seconds"]
        total = 0.0
        for name in self._keys:
            seconds = self._records[name]["seconds"]
            total += seconds
            note = "  (done before)" if name in self._skipped else ""
            lines.append(f"{name:<16}  {seconds:>7.1f}{note}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        lines.append(f"{'all':<16}  {total:>7.1f}  peak memory now: {peak:.1f} GiB")
        return "\n".join(lines)
