"""Exact top-k over passage vectors."""

import torch
from torch import Tensor

CHUNK = 65_536


@torch.no_grad()
def top_k(
    queries: Tensor, vectors: Tensor, k: int, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The k rows of ``vectors`` with the highest dot product, for each query.

    Reads the vectors once, ``chunk`` rows at a time, so that memory is bounded by a
    score matrix of [Q, chunk].

    Args:
        queries: [Q, D] float.
        vectors: [N, D] float, same dtype and device.
        k: hits per query; all N rows when N is smaller.
        chunk: rows scored at a time.

    Returns:
        scores [Q, k] in decreasing order and rows [Q, k] (int64). Equal scores are
        ordered by row, also at the last place, for every chunk size.
    """
    k = min(k, len(vectors))
    best_scores = queries.new_empty(len(queries), 0)
    best_rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(vectors), chunk):
        scores = queries @ vectors[start : start + chunk].T
        scores, rows = _first_k(scores, k)
        # Earlier rows stay to the left, so that position again breaks ties by row.
        best_scores, order = _first_k(torch.cat([best_scores, scores], dim=1), k)
        best_rows = torch.cat([best_rows, rows + start], dim=1).gather(1, order)
    return best_scores, best_rows


def _first_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k of each row of ``scores``; equal scores by column, as a stable sort does."""
    width = scores.shape[1]
    if width <= k:
        ordered, columns = scores.sort(dim=1, descending=True, stable=True)
        return ordered, columns
    # torch.topk is free to pick among equal scores. It matters where the first score
    # left out equals the last one taken; only those queries are sorted in full.
    values, columns = scores.topk(k + 1, dim=1)
    tied = values[:, k - 1] == values[:, k]
    values, columns = values[:, :k], columns[:, :k].clone()
    if tied.any():
        full = scores[tied].sort(dim=1, descending=True, stable=True)
        columns[tied] = full.indices[:, :k]
    columns = columns.sort(dim=1).values
    ordered, place = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return ordered, columns.gather(1, place)
