"""Pairwise errors: for a query and a relevant passage, the others scored above it.

Source: arXiv 2104.08051, section 4: T counts the non-relevant passages of the whole corpus
that stand above a relevant one; random negatives minimise its mean, hard negatives that of
min(T, K).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dense_hn import DenseHNError, ranks

# Passages and queries scored together: 16 MB of vectors in float64, 8 MB of scores.
CHUNK, QUERIES = 2**13, 128


@torch.no_grad()
def above(
    queries: Tensor,
    vectors: Tensor,
    listed: Sequence[Sequence[int]],
    left_out: Sequence[Sequence[int]],
) -> list[list[int]]:
    """How many rows of ``vectors`` score above each listed one.

    One pass over the vectors (of several processes, over a share of them in each), with a
    score matrix of [128, 8192] at a time. Scores are dot products in float64, rounded to
    float32, so that copies of a passage are level with it.

    Args:
        queries: [Q, D] float.
        vectors: [N, D] float, on the same device; may be a file that is read as needed.
        listed: rows, by query.
        left_out: rows that are not counted, by query: all that are relevant.

    Returns:
        For each query the counts of its listed rows, in their order.

    Raises:
        DenseHNError: a vector or a query is not finite.
    """
    part = ranks.share(len(vectors))
    _require_finite(queries, "queries")
    groups = [
        _Counts(queries, vectors, listed, left_out, slice(start, start + QUERIES))
        for start in range(0, len(queries), QUERIES)
    ]
    total = part.stop - part.start
    with tqdm(total=total, desc="Counting errors", unit=" passages") as progress:
        for start in range(part.start, part.stop, CHUNK):
            end = min(start + CHUNK, part.stop)
            chunk = vectors[start:end].to(torch.float64)
            _require_finite(chunk, "passages")
            for group in groups:
                group.add(chunk, start)
            progress.update(len(chunk))
    return [counts for group in groups for counts in group.finished()]


def _require_finite(matrix: Tensor, what: str) -> None:
    if not matrix.isfinite().all():
        raise DenseHNError(f"the vectors of {what} are not finite: encode them anew")


class _Counts:
    """Some queries, and how many scores have come above each of their listed rows."""

    def __init__(
        self,
        queries: Tensor,
        vectors: Tensor,
        listed: Sequence[Sequence[int]],
        left_out: Sequence[Sequence[int]],
        some: slice,
    ) -> None:
        self._queries = queries[some].to(torch.float64)
        self._numbers = [len(rows) for rows in listed[some]]
        width = max(self._numbers)
        # Where a query has fewer, nothing is above.
        scores = queries.new_full(
            (len(self._queries), width), torch.inf, dtype=torch.float32
        )
        for place, rows in enumerate(listed[some]):
            own = vectors[list(rows)].to(torch.float64) @ self._queries[place]
            scores[place, : len(rows)] = own.float()
        self._scores, self._order = scores.sort(dim=1)
        # How many scores lie between two listed ones: [:, j] above the lowest j.
        self._between = torch.zeros(
            len(scores), width + 1, dtype=torch.int64, device=scores.device
        )
        pairs = [
            (row, place) for place, rows in enumerate(left_out[some]) for row in rows
        ]
        pairs = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
        self._rows, self._places = pairs.T

    def add(self, chunk: Tensor, start: int) -> None:
        """Count the scores of [C, D] vectors, the first of which is row ``start``."""
        scores = (self._queries @ chunk.T).float()
        first, end = np.searchsorted(self._rows, [start, start + len(chunk)])
        columns = torch.from_numpy(self._rows[first:end] - start)
        scores[torch.from_numpy(self._places[first:end]), columns] = -torch.inf
        found = torch.searchsorted(self._scores, scores)
        self._between.scatter_add_(1, found, torch.ones_like(found))

    def finished(self) -> list[list[int]]:
        """The counts by query, in the order that rows were listed in."""
        over = ranks.summed(self._between).flip(1).cumsum(1).flip(1)[:, 1:]
        counts = torch.empty_like(over).scatter_(1, self._order, over)
        return [
            row[:number]
            for row, number in zip(counts.tolist(), self._numbers, strict=True)
        ]


def carried_by(errors: Sequence[float], share: float) -> float:
    """The part of all errors that the worst queries have.

    Args:
        errors: of each query.
        share: of the queries, rounded up to whole ones.

    Returns:
        From 0 to 1; 0 where there is no error.
    """
    worst = np.sort(np.asarray(errors, dtype=np.float64))[::-1]
    number = int(np.ceil(round(share * len(worst), 9)))
    return float(worst[:number].sum() / worst.sum()) if worst.any() else 0.0
