"""Runs stages once: a finished stage whose inputs are the same is skipped."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dense_hn import DenseHNError, __version__, costs
from dense_hn.files import whole_file
from dense_hn.reading import read_object

# What a stage's record has.
RECORD = {
    "key": str,
    "seconds": (int, float),
    "peak_memory_gib": (int, float),
    "shares": dict,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A declared stage."""

    work: Callable[[], None]
    outputs: Sequence[Path]
    # What it is known by, see Ledger.
    key: str
    # The stages whose outputs it reads.
    after: Sequence[str]


class Ledger:
    """The stages of one recipe in a JSON file: what each was made from, and its cost.

    A stage is known by a key, the digest of its settings, of the keys of the stages
    that it builds on, and of this package's version. It is skipped when the ledger
    holds that key and its outputs exist.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._records = _records(ledger) if ledger.exists() else {}
        self._skipped: set[str] = set()
        # By name, in the order in which they run.
        self.stages: dict[str, Stage] = {}

    def add(
        self,
        name: str,
        work: Callable[[], None],
        outputs: Sequence[Path],
        settings: Any = None,
        *,
        after: Sequence[str] = (),
    ) -> None:
        """Declare a stage, which :meth:`run` does unless it was done.

        Args:
            name: of the stage, unique in a recipe.
            work: makes all of ``outputs``, each appearing only when whole.
            outputs: files and folders.
            settings: what it depends on, as JSON.
            after: names of the stages, declared before, whose outputs it reads.
        """
        made_from = [
            __version__,
            name,
            settings,
            [self.stages[stage].key for stage in after],
        ]
        # YAML has dates, too.
        text = json.dumps(made_from, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()
        self.stages[name] = Stage(work=work, outputs=outputs, key=key, after=after)

    def run(self) -> None:
        """Do the declared stages that are not done."""
        for number, (name, stage) in enumerate(self.stages.items(), 1):
            done = self._records.get(name, {}).get("key") == stage.key
            if done and all(output.exists() for output in stage.outputs):
                self._skipped.add(name)
                continue
            tqdm.write(f"── {name} ({number} of {len(self.stages)})")
            # Forgotten first: a stage that is interrupted may leave outputs of two
            # makings, and what was made from its older output is not of the new one. Where
            # an output was only removed, the same is made again.
            forgotten = [] if done else self._hanging_on(name)
            if [one for one in forgotten if self._records.pop(one, None)]:
                self._write()
            with costs.Costs() as spent:
                stage.work()
            self._records[name] = {"key": stage.key, **spent.facts()}
            self._write()

    def _hanging_on(self, name: str) -> list[str]:
        """A stage, and all that builds on it."""
        found = [name]
        for later, stage in self.stages.items():
            if {*found} & {*stage.after}:
                found.append(later)
        return found

    def needed(self, name: str) -> list[str]:
        """A stage, and before it all that it builds on, each once."""
        stages: dict[str, None] = {}
        for earlier in self.stages[name].after:
            stages |= dict.fromkeys(self.needed(earlier))
        return [*stages, name]

    def _write(self) -> None:
        with whole_file(self._ledger) as partial:
            partial.write_text(json.dumps(self._records, indent=2) + "\n")

    def summary(self) -> str:
        """What every stage took, and where its time went."""
        width = max(16, *map(len, self.stages))
        lines = [f"{'stage':{width}}  seconds  s/step  peak GiB  where"]
        total = 0.0
        for name in self.stages:
            facts = self._records[name]
            total += facts["seconds"]
            step = f"{facts['seconds_per_step']:.3f}" if "steps" in facts else ""
            where = costs.shares_in_words(facts)
            if name in self._skipped:
                where += "  (done before)"
            lines.append(
                f"{name:{width}}  {facts['seconds']:>7.1f}  {step:>6}  "
                f"{facts['peak_memory_gib']:>8.1f}  {where}"
            )
        lines.append(f"{'all':{width}}  {total:>7.1f}")
        return "\n".join(lines)


def _is_record(record: Any) -> bool:
    """Whether it is a key with costs.Costs.facts."""
    return isinstance(record, dict) and all(
        isinstance(record.get(name), kind) for name, kind in RECORD.items()
    )


def _records(ledger: Path) -> dict[str, Any]:
    records = read_object(ledger, "ledger")
    if not all(map(_is_record, records.values())):
        raise DenseHNError(
            f"{ledger}: not as a recipe writes it; remove it, and all stages run again"
        )
    return records
