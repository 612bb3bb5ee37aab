"""What a check found: findings, figures of the collection, and the verdict."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, TypeVar

# Makes training or evaluation invalid.
ERROR = "error"
WARNING = "warning"
INFORMATION = "information"
# What a finding of nothing has, whatever it would have been.
OK = "ok"
# In the order of the text, whose end is what a terminal shows.
SEVERITIES = (OK, INFORMATION, WARNING, ERROR)

EXAMPLES = 5
LONGEST = 160

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked for."""

    # What it is called in every report: its kind, and the splits or run it is about.
    name: str
    severity: str
    count: int
    # What was counted, so that "{count} {what}" reads as a sentence.
    what: str
    # The first five.
    examples: list[str] = field(default_factory=list)
    # What to do about it.
    advice: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        severity: str,
        items: Collection[Item],
        what: str,
        show: Callable[[Item], str] = str,
        advice: str = "",
    ) -> "Finding":
        """A finding of all ``items``; ``ok`` where there are none.

        Args:
            name: as in the class.
            severity: ERROR, WARNING or INFORMATION, if there are any.
            items: what was found.
            what: as in the class.
            show: an item as a line of text.
            advice: as in the class.
        """
        return cls(
            name=name,
            severity=severity if items else OK,
            count=len(items),
            what=what,
            examples=[_line(show(item)) for item in islice(items, EXAMPLES)],
            advice=advice if items else "",
        )

    def lines(self) -> list[str]:
        """A line of severity, count and what was counted; examples and advice."""
        below = [*self.examples, f"→ {self.advice}"] if self.advice else self.examples
        first = f"{self.severity:<12}{self.count:>8} {self.what}"
        return [first, *(f"{'':23}{line}" for line in below)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that was found in a collection."""

    # As it was named.
    source: str
    findings: list[Finding]
    # By corpus and split: fingerprints, sizes, lengths.
    figures: Mapping[str, Mapping[str, Any]]

    @property
    def valid(self) -> bool:
        """Whether there is no error."""
        return all(finding.severity != ERROR for finding in self.findings)

    def json(self) -> dict[str, Any]:
        """Everything in the text, as JSON."""
        findings = [asdict(finding) for finding in self.findings]
        return {
            "source": self.source,
            "valid": self.valid,
            "findings": findings,
            "figures": self.figures,
        }

    def text(self) -> str:
        """Figures, a line for each finding with its examples below it, the verdict."""
        lines: list[str] = []
        for part, figures in self.figures.items():
            lines += [part]
            lines += [f"  {name}: {_figure(value)}" for name, value in figures.items()]
        lines += [""]
        for severity in SEVERITIES:
            for finding in self.findings:
                if finding.severity == severity:
                    lines += finding.lines()
        return "\n".join([*lines, "", self._verdict()])

    def _verdict(self) -> str:
        wrong = [f for f in self.findings if f.severity == ERROR]
        if wrong:
            reasons = "; ".join(f"{f.count} {f.what}" for f in wrong)
            return f"{self.source}: not valid: {reasons}"
        warned = sum(finding.severity == WARNING for finding in self.findings)
        return f"{self.source}: valid; kinds of warnings: {warned}"


def _line(text: str) -> str:
    """A text on one line, not too long a one."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _figure(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return str(value)
