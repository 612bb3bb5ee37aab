"""What a training sees while it learns: means over the steps between two lines of its log."""

import torch
from torch import Tensor

# Hits of a query that are compared with those of its last epoch.
COMPARED = 10
# In the place of rows where a query has had no step.
NEVER = -2


class Telemetry:
    """Sums of what steps tell; kept as tensors, so that a GPU need not be waited for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Take numbers, of queries or of pairs, into a mean."""
        self._sums[name] = values.detach().sum(dtype=torch.float64) + self._sums.get(
            name, 0
        )
        self._counts[name] = self._counts.get(name, 0) + values.numel()

    def means(self) -> dict[str, float]:
        """The means since the last call."""
        means = {
            name: round(float(total) / self._counts[name], 4)
            for name, total in self._sums.items()
            if self._counts[name]
        }
        self._sums, self._counts = {}, {}
        return means


class LastHits:
    """The first hits of every query, as its last step found them."""

    def __init__(self, queries: int, device: torch.device) -> None:
        """Hold 40 bytes for each of so many queries."""
        self._rows = torch.full(
            (queries, COMPARED), NEVER, dtype=torch.int32, device=device
        )

    def again(self, numbers: Tensor, hits: Tensor) -> Tensor:
        """The part of a query's first ten hits that it had the last time, too.

        Args:
            numbers: [B] of the queries.
            hits: [B, K] rows, best first.

        Returns:
            One number for each query that was here before.
        """
        first = hits[:, :COMPARED].to(torch.int32)
        before = self._rows[numbers]
        shares = (
            (first[:, :, None] == before[:, None, :]).any(dim=2).double().mean(dim=1)
        )
        self._rows[numbers, : first.shape[1]] = first
        return shares[before[:, 0] != NEVER]
