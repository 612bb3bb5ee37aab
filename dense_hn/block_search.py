"""Exact top-k on a GPU: one fused pass that keeps only the best score of every block.

1. For each block of 64 rows and each query, the best score: vectors are read once,
   scores never leave the chip.
2. The k blocks with the best scores hold the k best rows: a row elsewhere has k rows
   above it, one in each of them.
3. Only their rows are scored again, and the best k taken.

Nothing waits for the host. Everything is ordered by score and then by row, through keys
that hold both.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64
# Rows of a program, and dimensions read at a time.
ROWS, DIMENSIONS = 128, 64
# The lower half of a key: rows and blocks are fewer than this.
LAST = 2**31 - 1


def top_k(queries: Tensor, vectors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows of ``vectors`` with the highest dot product, for each query.

    Args:
        queries: [Q, D] float32 or float16, on a GPU as everything here.
        vectors: [N, D] of the same type; N under 2^31.
        k: hits per query, at most N.

    Returns:
        scores [Q, k] in decreasing order, summed in float32, and rows [Q, k] (int64).
        Equal scores are ordered by row.
    """
    queries, vectors = queries.contiguous(), vectors.contiguous()
    blocks = triton.cdiv(len(vectors), BLOCK)
    maxima = queries.new_empty(len(queries), blocks, dtype=torch.float32)
    # 16 is the least that the matrix units take.
    width = min(128, max(16, triton.next_power_of_2(len(queries))))
    programs = triton.cdiv(len(vectors), ROWS) * triton.cdiv(len(queries), width)
    _block_maxima[(programs,)](
        vectors,
        queries,
        maxima,
        len(vectors),
        len(queries),
        blocks,
        vectors.shape[1],
        QUERIES=width,
        ROWS=ROWS,
        BLOCK=BLOCK,
        DIMENSIONS=DIMENSIONS,
        num_warps=8 if width >= 64 else 4,
        num_stages=4 if vectors.dtype != torch.float32 else 2,
    )
    numbers = torch.arange(blocks, device=vectors.device)
    best = _keys(maxima, numbers).topk(min(k, blocks), dim=1, sorted=False).values
    chosen = _number(best)

    scores = queries.new_empty(*chosen.shape, BLOCK, dtype=torch.float32)
    _scores_inside[(chosen.numel(),)](
        vectors,
        queries,
        chosen,
        scores,
        len(vectors),
        chosen.shape[1],
        vectors.shape[1],
        BLOCK=BLOCK,
        DIMENSIONS=DIMENSIONS,
    )
    rows = chosen[:, :, None] * BLOCK + torch.arange(BLOCK, device=vectors.device)
    best = _keys(scores.flatten(1), rows.flatten(1)).topk(k, dim=1).values
    return _score(best), _number(best)


def _keys(scores: Tensor, numbers: Tensor) -> Tensor:
    """int64 keys: a higher score first, then a lower number (below 2^31)."""
    # Floats of one sign are ordered as their bits are, negative ones the other way
    # round. Adding zero makes one of the two zeros.
    bits = (scores + 0.0).view(torch.int32)
    bits = bits ^ ((bits >> 31) & LAST)
    return (bits.long() << 32) | (LAST - numbers)


def _number(keys: Tensor) -> Tensor:
    return LAST - (keys & (2**32 - 1))


def _score(keys: Tensor) -> Tensor:
    bits = (keys >> 32).int()
    return (bits ^ ((bits >> 31) & LAST)).view(torch.float32)


@triton.jit
def _block_maxima(
    vectors,
    queries,
    maxima,
    n_rows,
    n_queries,
    n_blocks,
    n_dimensions,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    DIMENSIONS: tl.constexpr,
):
    """The best score of each block of a tile of rows, for a tile of queries."""
    # Programs of the same rows are neighbours, so that all but one find them in cache.
    tiles = tl.cdiv(n_queries, QUERIES)
    tile = tl.program_id(0) // tiles
    row = tile * ROWS + tl.arange(0, ROWS)
    query = (tl.program_id(0) % tiles) * QUERIES + tl.arange(0, QUERIES)
    dimension = tl.arange(0, DIMENSIONS)
    # Offsets pass 2^31.
    of_row = vectors + row.to(tl.int64)[:, None] * n_dimensions + dimension[None, :]
    of_query = queries + query[None, :] * n_dimensions + dimension[:, None]
    scores = tl.zeros((ROWS, QUERIES), tl.float32)
    for start in range(0, n_dimensions, DIMENSIONS):
        there = start + dimension < n_dimensions
        left = tl.load(
            of_row + start, (row < n_rows)[:, None] & there[None, :], other=0.0
        )
        right = tl.load(
            of_query + start, (query < n_queries)[None, :] & there[:, None], other=0.0
        )
        scores = tl.dot(left, right, scores, input_precision="ieee")
    scores = tl.where((row < n_rows)[:, None], scores, float("-inf"))
    best = tl.max(tl.reshape(scores, (ROWS // BLOCK, BLOCK, QUERIES)), axis=1)
    block = tile * (ROWS // BLOCK) + tl.arange(0, ROWS // BLOCK)
    tl.store(
        maxima + query[None, :].to(tl.int64) * n_blocks + block[:, None],
        best,
        (query < n_queries)[None, :] & (block < n_blocks)[:, None],
    )


@triton.jit
def _scores_inside(
    vectors,
    queries,
    chosen,
    scores,
    n_rows,
    n_chosen,
    n_dimensions,
    BLOCK: tl.constexpr,
    DIMENSIONS: tl.constexpr,
):
    """All scores inside one block that a query has chosen."""
    place = tl.program_id(0).to(tl.int64)
    query = place // n_chosen
    row = tl.load(chosen + place) * BLOCK + tl.arange(0, BLOCK)
    dimension = tl.arange(0, DIMENSIONS)
    total = tl.zeros((BLOCK, DIMENSIONS), tl.float32)
    for start in range(0, n_dimensions, DIMENSIONS):
        there = start + dimension < n_dimensions
        left = tl.load(
            vectors + row[:, None] * n_dimensions + start + dimension[None, :],
            (row < n_rows)[:, None] & there[None, :],
            other=0.0,
        )
        right = tl.load(
            queries + query * n_dimensions + start + dimension, there, other=0.0
        )
        total += left.to(tl.float32) * right.to(tl.float32)[None, :]
    inside = tl.where(row < n_rows, tl.sum(total, axis=1), float("-inf"))
    tl.store(scores + place * BLOCK + tl.arange(0, BLOCK), inside)
