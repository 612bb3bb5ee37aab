"""The losses, as pure functions of scores: batched, differentiable, no loop per query.

Notation of the paper (arXiv 2104.08051): query q, positive p, negative n, score
s(q, d) = f(q)·g(d), pair loss l(q, p, n) = softplus(s(q, n) − s(q, p)).

Every function takes float scores and boolean masks on one device and returns a
scalar; masked entries get no gradient.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus


def pairwise(positive: Tensor, negative: Tensor) -> Tensor:
    """RankNet's pair loss, l = softplus(s(q,n) − s(q,p)), of the broadcast shapes."""
    return softplus(negative - positive)


def star_weighted(
    positive: Tensor, scores: Tensor, hard: Tensor, random: Tensor, alpha: float = 1.0
) -> Tensor:
    """STAR as the paper writes it (Eq. 13): L = L_s + α·L_r.

    L_s is the mean pair loss over the queries' own static hard negatives, L_r the mean
    over the batch's other documents, each over its own pairs.

    Args:
        positive: [B] score of each query's positive.
        scores: [B, M] scores of all documents of the batch.
        hard: [B, M] True where the document is the query's own hard negative.
        random: [B, M] True where it is another query's document, and not a known
            positive of this query.
        alpha: weight of the random part.
    """
    loss = pairwise(positive[:, None], scores)
    return _masked_mean(loss, hard) + alpha * _masked_mean(loss, random)


def star_pooled(
    positive: Tensor, scores: Tensor, hard: Tensor, random: Tensor
) -> Tensor:
    """STAR as the authors' code computes it: one mean over hard and random pairs.

    Arguments as in :func:`star_weighted`.
    """
    return _masked_mean(pairwise(positive[:, None], scores), hard | random)


def infonce(positive: Tensor, scores: Tensor, hard: Tensor, random: Tensor) -> Tensor:
    """Softmax cross-entropy of the positive among it and all negatives of the batch.

    Arguments as in :func:`star_weighted`; the temperature is one over the encoder's
    score scale, with which the scores come multiplied.
    """
    negatives = scores.masked_fill(~(hard | random), -torch.inf)
    everything = torch.cat([positive[:, None], negatives], dim=1)
    return (everything.logsumexp(dim=1) - positive).mean()


STAR_LOSSES: dict[str, Callable[..., Tensor]] = {
    "weighted": star_weighted,
    "pooled": star_pooled,
    "infonce": infonce,
}


def lambda_loss(
    positive: Tensor,
    positive_rank: Tensor,
    is_positive: Tensor,
    retrieved: Tensor,
    is_negative: Tensor,
    cut: int,
) -> Tensor:
    """ADORE's LambdaLoss: pairs weighted by what swapping them does to RR@cut.

    Per query, the mean over its pairs (positive i, negative j) of
    w_ij·softplus(s_j − s_i) with w_ij = |m(r_i) − m(r_j)|, m(r) = 1/r for r ≤ cut and 0
    beyond; then the mean over the queries that have a pair. r is the rank in the
    retrieved list; a positive that was not retrieved stands behind it
    (:func:`positive_ranks`).

    Args:
        positive: [B, P] scores of the queries' positives, padded.
        positive_rank: [B, P] their ranks, from 1.
        is_positive: [B, P] False where padded.
        retrieved: [B, K] scores of the retrieved list; column j has rank j + 1.
        is_negative: [B, K] False where the hit is a known positive.
        cut: ranks beyond it are worth nothing.

    Source: paper, section 5.2, and its released code (which leaves out positives that
    were not retrieved when another one was).
    """
    rank = torch.arange(1, retrieved.shape[1] + 1, device=retrieved.device)
    of_positive = reciprocal_rank(positive_rank.to(retrieved.dtype), cut)
    of_hit = reciprocal_rank(rank.to(retrieved.dtype), cut)
    weight = (of_positive[:, :, None] - of_hit[None, None, :]).abs()
    loss = weight * pairwise(positive[:, :, None], retrieved[:, None, :])
    pair = is_positive[:, :, None] & is_negative[:, None, :]
    pairs = pair.sum(dim=(1, 2))
    per_query = torch.where(pair, loss, 0).sum(dim=(1, 2)) / pairs.clamp(min=1)
    return per_query.sum() / (pairs > 0).sum().clamp(min=1)


def reciprocal_rank(rank: Tensor, cut: int) -> Tensor:
    """m(r) = 1/r for r ≤ cut, else 0, for float ranks of any shape."""
    return torch.where(rank <= cut, 1 / rank, 0)


def positive_ranks(
    positive: Tensor, rows: Tensor, is_positive: Tensor, retrieved_rows: Tensor
) -> Tensor:
    """Rank of every positive: where it was retrieved, or behind the list's end.

    The positives that were not retrieved stand at K+1, K+2, … by decreasing score
    (ties: by column).

    Args:
        positive: [B, P] scores of the positives, padded.
        rows: [B, P] their rows in the corpus.
        is_positive: [B, P] False where padded.
        retrieved_rows: [B, K] corpus rows of the retrieved list, best first.

    Returns:
        [B, P] ranks from 1 (int64); meaningless where padded.
    """
    found = rows[:, :, None] == retrieved_rows[:, None, :]
    missing = is_positive & ~found.any(dim=2)
    score = positive.detach().masked_fill(~missing, -torch.inf)
    order = score.argsort(dim=1, descending=True, stable=True)
    behind = retrieved_rows.shape[1] + 1 + order.argsort(dim=1)
    return torch.where(missing, behind, found.int().argmax(dim=2) + 1)


def _masked_mean(loss: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, loss, 0).sum() / mask.sum().clamp(min=1)
