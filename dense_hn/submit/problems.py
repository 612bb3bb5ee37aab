"""All that is wrong with a package, so that it can be mended in one go."""

from dense_hn import DenseHNError

# Lines of one kind that are shown; the rest is counted.
SHOWN = 10


class Problems:
    """Collects problems, a few of each kind."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._count: dict[str, int] = {}

    def add(self, kind: str, where: str, what: str) -> None:
        """Note a problem.

        Args:
            kind: what problems that are counted together have in common.
            where: file, or ``file:line`` of the decompressed file.
            what: what is wrong, and what would be right.
        """
        self._count[kind] = self._count.get(kind, 0) + 1
        if self._count[kind] <= SHOWN:
            self._lines.append(f"{where}: {what}")

    def lines(self) -> list[str]:
        """A line for every problem that is shown, then one for each kind's rest."""
        rest = {kind: count - SHOWN for kind, count in self._count.items()}
        more = [f"… and {n} more: {kind}" for kind, n in rest.items() if n > 0]
        return self._lines + more

    def __bool__(self) -> bool:
        return bool(self._count)

    def refuse(self) -> None:
        """Raise a DenseHNError with all lines if there is any problem."""
        if self:
            raise DenseHNError("\n".join(self.lines()))
