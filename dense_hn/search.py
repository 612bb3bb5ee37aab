"""Exact top-k over passage vectors: one pass over them, no score matrix of the corpus.

A block of passages is known by its best score. Once k scores are known to be reached,
only blocks with a better one hold a hit, and only they are looked into. A GPU does the
same in dense_hn.block_search, where there is Triton. The fastest product rounds most, so
that some more hits are taken than wanted, and scored again.
"""

import importlib.util
import logging
from collections.abc import Callable

import torch
from torch import Tensor, distributed
from torch.nn.functional import conv2d, pad

from dense_hn import DenseHNError

log = logging.getLogger("dense_hn")

# Passages scored together: many, so that what is done once for each chunk is little.
CHUNK = 2**16
# Scores at most held at a time, 32 MB, which a last-level cache holds.
SCORES = 2**23
# Passages of a block.
BLOCK = 16
# Hits more than wanted that are scored again: what a fast product may have put wrong.
MARGIN = 16
# Queries whose hits are scored again at a time: 8 × (k + MARGIN) rows are in memory.
AGAIN = 8
# Whether Triton has failed in this process.
_refused = False


@torch.no_grad()
def top_k(
    queries: Tensor, vectors: Tensor, k: int, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """The k rows of ``vectors`` with the highest dot product, for each query.

    Reads the vectors once, ``chunk`` rows at a time, so that memory is bounded by a
    score matrix of [chunk, Q] (on a GPU with Triton, by the best scores of blocks of 64
    rows).

    Args:
        queries: [Q, D] float32, rounded to the vectors' type.
        vectors: [N, D] float32 or float16, on the same device.
        k: hits per query; all N rows when N is smaller.
        chunk: rows scored at a time, if not what suits a cache.

    Returns:
        scores [Q, k] in decreasing order, float32 products summed in float64 and rounded
        to float32, and rows [Q, k] (int64). Equal scores are ordered by row, also at the
        last place, for every chunk size.

    Raises:
        DenseHNError: a score is no number (not found out by Triton).
    """
    queries = queries.to(vectors.dtype)
    wanted = min(k + MARGIN, len(vectors))
    if not wanted:
        return queries.new_empty(len(queries), 0, dtype=torch.float32), torch.empty(
            len(queries), 0, dtype=torch.int64, device=queries.device
        )
    rows = None
    if vectors.is_cuda and chunk is None:
        rows = _by_triton(queries, vectors, wanted)
    if rows is None:

        def products(part: slice) -> Tensor:
            return _products(vectors[part], queries)

        rows = best_of(products, len(vectors), queries, wanted, chunk)[1]
    # Rows in their order, so that a stable sort breaks ties by row.
    rows = rows.sort(dim=1).values
    scores = torch.cat(
        [
            (vectors[found].float() * query[:, None]).sum(dim=2, dtype=torch.float64)
            for query, found in zip(
                queries.float().split(AGAIN), rows.split(AGAIN), strict=True
            )
        ]
    ).float()
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return scores[:, :k], rows.gather(1, order[:, :k])


def _by_triton(queries: Tensor, vectors: Tensor, k: int) -> Tensor | None:
    """Rows [Q, k] of the best, where Triton is there and can make its kernels."""
    global _refused
    if _refused or not importlib.util.find_spec("triton"):
        return None
    from triton.errors import TritonError

    from dense_hn import block_search

    try:
        return block_search.top_k(queries, vectors, k)[1]
    except torch.OutOfMemoryError:
        # What is searched a chunk at a time needs less, and the next search may have more.
        return None
    except (RuntimeError, TritonError) as error:
        # No C compiler, or too little shared memory on the chip.
        _refused = True
        log.warning("Triton cannot make its search kernel, so it is slower: %s", error)
        return None


def best_of(
    products: Callable[[slice], Tensor],
    passages: int,
    queries: Tensor,
    k: int,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The k highest of scores that are made a chunk of passages after another.

    Args:
        products: of C rows to their scores [C, Q], float32.
        passages: N, 1 or more.
        queries: [Q, D].
        k: hits per query, at most N.
        chunk: rows scored at a time, if not what suits a cache.

    Returns:
        scores [Q, k] as they were made, in decreasing order, and rows [Q, k] (int64);
        equal scores are ordered by row.

    Raises:
        DenseHNError: a score is no number.
    """
    chunk = chunk or max(BLOCK, min(CHUNK, SCORES // len(queries)))
    # Alike, so that the last one has little to do again.
    number = -(-passages // chunk)
    chunk = min(-(-passages // (number * BLOCK)) * BLOCK, passages)
    best_scores = queries.new_empty(len(queries), 0, dtype=torch.float32)
    best_rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for end in range(chunk, passages + chunk, chunk):
        # The last chunk reaches back over rows that are done: products of another shape
        # may round otherwise, and equal vectors would have unequal scores.
        start = min(end, passages) - chunk
        scores = products(slice(start, start + chunk))
        scores[: end - chunk - start] = -torch.inf
        scores, rows = _candidates(scores, best_scores, k)
        # Earlier rows stay to the left, so that a stable sort breaks ties by row.
        scores = torch.cat([best_scores, scores], dim=1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        best_scores = scores[:, :k]
        best_rows = torch.cat([best_rows, rows + start], dim=1).gather(1, order[:, :k])
    return best_scores, best_rows


def top_k_of_shards(
    queries: Tensor, shard: Tensor, first: int, k: int
) -> tuple[Tensor, Tensor]:
    """:func:`top_k` of vectors that are split over the ranks of torch.distributed.

    Every rank calls it with the same queries; one all-gather brings their hits together.

    Args:
        queries: [Q, D] float, the same on every rank.
        shard: [n, D] this rank's vectors, rows ``first`` to ``first + n − 1`` of all;
            higher ranks have later rows.
        first: see there.
        k: hits per query; all N rows when N is smaller.

    Returns:
        As :func:`top_k` of all the vectors, on every rank.
    """
    scores, rows = top_k(queries, shard, k)
    return merged(scores, rows + first, k)


def merged(scores: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best k of what all ranks of torch.distributed have found.

    Args:
        scores: [Q, at most k] float32, decreasing.
        rows: [Q, as many] of all; higher ranks have later ones.
        k: hits per query.

    Returns:
        The same on every rank; narrower than k where there are fewer hits together.
    """
    # One tensor of both: a float64 holds any float32, and any row there can be.
    ours = torch.stack([scores.double(), rows.double()])
    ours = pad(ours, (0, k - scores.shape[1]), value=-torch.inf)
    ranks = distributed.get_world_size()
    theirs = ours.new_empty(ranks * 2, len(scores), k)
    distributed.all_gather_into_tensor(theirs, ours)
    scores, rows = theirs.view(ranks, 2, len(scores), k).permute(1, 2, 0, 3).flatten(2)
    number = min(k, int(rows[0].isfinite().sum()))
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return scores[:, :number].float(), rows.gather(1, order[:, :number]).long()


def _products(vectors: Tensor, queries: Tensor) -> Tensor:
    """Dot products [C, Q], float32."""
    vectors, queries = vectors.float(), queries.float()
    if vectors.device.type != "cpu":
        return vectors @ queries.T
    # A convolution of one pixel is the same product, which PyTorch gives to oneDNN: 1.4
    # times as fast as its own (benchmarks/search.py).
    pixels = vectors.view(1, len(vectors), 1, -1).permute(0, 3, 1, 2)
    return conv2d(pixels, queries[:, :, None, None]).permute(0, 2, 3, 1)[0, :, 0]


def _candidates(scores: Tensor, best: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The rows of ``scores`` [C, Q] that can be among the k best, by query.

    Args:
        scores: of a chunk.
        best: [Q, k] the best k scores of earlier rows, decreasing; narrower where there
            were fewer.
        k: hits wanted.

    Returns:
        scores [Q, W] and rows [Q, W] in the order of rows; padded with −inf where
        another query has more.
    """
    queries = scores.shape[1]
    if len(scores) % BLOCK:
        scores = pad(scores, (0, 0, 0, -len(scores) % BLOCK), value=-torch.inf)
    blocks = scores.view(-1, BLOCK, queries)
    maxima = blocks.amax(dim=1).T
    if maxima.isnan().any():
        raise DenseHNError("a score is no number: vectors or queries are not finite")
    # k blocks, so k rows, reach the k-th of the maxima.
    reached = maxima if maxima.shape[1] >= k else scores.T
    if best.shape[1] == k:
        # A later row must be better, not equal.
        least = best[:, -1:]
    elif reached.shape[1] >= k:
        lowest = reached.topk(k, dim=1).values[:, -1:]
        least = lowest.nextafter(lowest.new_tensor(-torch.inf))
    else:
        least = maxima.new_full((queries, 1), -torch.inf)
    query, block = (maxima > least).nonzero(as_tuple=True)
    inside = blocks[block, :, query]
    found, place = (inside > least[query]).nonzero(as_tuple=True)
    query, values = query[found], inside[found, place]
    rows = block[found] * BLOCK + place
    counts = query.bincount(minlength=queries)
    column = torch.arange(len(query), device=query.device)
    column -= (counts.cumsum(0) - counts)[query]
    shape = queries, int(counts.max())
    table = scores.new_full(shape, -torch.inf), rows.new_zeros(shape)
    for cells, found in zip(table, (values, rows), strict=True):
        cells[query, column] = found
    return table
