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


def margin_mse(
    positive: Tensor,
    scores: Tensor,
    pairs: Tensor,
    teacher_positive: Tensor,
    teacher: Tensor,
) -> Tensor:
    """Margin-MSE: the mean squared difference of the student's and teacher's margins.

    Over the pairs, ((s(q,p) − s(q,n)) − (t(q,p) − t(q,n)))².

    Args:
        positive: [B] the student's score of each query's positive.
        scores: [B, M] the student's scores of all documents of the batch.
        pairs: [B, M] True where the document is a negative that the teacher scored.
        teacher_positive: [B] the teacher's score of each query's positive.
        teacher: [B, M] the teacher's scores; anything where ``pairs`` is False.

    Source: Hofstätter et al., arXiv 2010.02666, section 4.1.
    """
    ours = positive[:, None] - scores
    theirs = teacher_positive[:, None] - teacher
    # Masked before squaring, so that what the teacher did not score has no gradient.
    gap = torch.where(pairs, ours - theirs, 0)
    return _masked_mean(gap**2, pairs)


def kl_divergence(
    positive: Tensor,
    scores: Tensor,
    pairs: Tensor,
    teacher_positive: Tensor,
    teacher: Tensor,
) -> Tensor:
    """KL divergence of the student's softmax from the teacher's, per query.

    Both over the query's positive and its negatives in ``pairs``:
    Σ_d P_t(d)·(log P_t(d) − log P_s(d)); the mean over the queries that have a pair.

    Arguments as in :func:`margin_mse`.

    Source: Hinton et al., arXiv 1503.02531, on lists of documents as in RocketQAv2
    (arXiv 2110.07367, section 3.2).
    """
    ours = torch.cat([positive[:, None], scores], dim=1)
    theirs = torch.cat([teacher_positive[:, None], teacher], dim=1)
    own = torch.ones_like(pairs[:, :1])
    listed = torch.cat([own, pairs], dim=1)
    ours = ours.masked_fill(~listed, -torch.inf).log_softmax(dim=1)
    theirs = theirs.masked_fill(~listed, -torch.inf).log_softmax(dim=1)
    gap = torch.where(listed, theirs - ours, 0)
    return _masked_mean((theirs.exp() * gap).sum(dim=1), pairs.any(dim=1))


DISTILLATIONS: dict[str, Callable[..., Tensor]] = {
    "margin-mse": margin_mse,
    "kl": kl_divergence,
}


def lambda_loss(
    positive: Tensor,
    positive_rank: Tensor,
    grade: Tensor,
    retrieved: Tensor,
    is_negative: Tensor,
    cut: int,
    metric: str = "RR",
) -> Tensor:
    """ADORE's LambdaLoss: pairs weighted by what swapping them does to a metric.

    Per query, the mean over its pairs (i relevant, j less so) of
    w_ij·softplus(s_j − s_i); then the mean over the queries that have a pair. r is the
    rank in the retrieved list; a positive that was not retrieved stands behind it
    (:func:`positive_ranks`). By ``metric``:

    * ``RR``: w_ij = |m(r_i) − m(r_j)|, m(r) = 1/r for r ≤ cut and 0 beyond; relevant
      is relevant, whatever the grade.
    * ``nDCG``: w_ij = |g_i − g_j|·|m(r_i) − m(r_j)| / ideal DCG@cut, m(r) =
      1/log2(1 + r) for r ≤ cut and 0 beyond, gains g as graded; two positives of
      different grade are a pair as well.
    * ``none``: w_ij = 1, every pair as RankNet has it.

    Args:
        positive: [B, P] scores of the queries' positives, padded.
        positive_rank: [B, P] their ranks, from 1.
        grade: [B, P] their relevance, 1 or more; 0 where padded.
        retrieved: [B, K] scores of the retrieved list; column j has rank j + 1.
        is_negative: [B, K] False where the hit is a known positive, or left out.
        cut: ranks beyond it are worth nothing; without meaning for ``none``.
        metric: one of :data:`LAMBDA_METRICS`.

    Source: paper, section 5.2, and its released code (which leaves out positives that
    were not retrieved when another one was); nDCG's weights are LambdaRank's, with the
    gains of trec_eval's ndcg_cut.
    """
    gain = grade if metric == "nDCG" else grade.clamp(max=1)
    gain = gain.to(positive.dtype)
    # Whom a positive may stand above: the hits, and the other positives.
    hits = torch.arange(1, retrieved.shape[1] + 1, device=retrieved.device)
    ranks = torch.cat([hits.expand(len(grade), -1), positive_rank], dim=1)
    scores = torch.cat([retrieved, positive], dim=1)
    gains = torch.cat([torch.zeros_like(retrieved), gain], dim=1)
    listed = torch.cat([is_negative, grade > 0], dim=1)
    pair = (gain[:, :, None] > gains[:, None, :]) & listed[:, None, :]

    loss = pairwise(positive[:, :, None], scores[:, None, :])
    if metric != "none":
        of_other = worth(ranks.to(gain.dtype), cut, metric)
        of_positive = of_other[:, retrieved.shape[1] :]
        loss = loss * (of_positive[:, :, None] - of_other[:, None, :]).abs()
    if metric == "nDCG":
        places = torch.arange(1, gain.shape[1] + 1, device=gain.device)
        best = gain.sort(dim=1, descending=True).values
        ideal = (best * worth(places.to(gain.dtype), cut, metric)).sum(dim=1)
        change = gain[:, :, None] - gains[:, None, :]
        # A row without positives has no pair, and must not divide by zero.
        loss = loss * change / ideal.clamp(min=1e-6)[:, None, None]
    pairs = pair.sum(dim=(1, 2))
    per_query = torch.where(pair, loss, 0).sum(dim=(1, 2)) / pairs.clamp(min=1)
    return per_query.sum() / (pairs > 0).sum().clamp(min=1)


LAMBDA_METRICS = ("RR", "nDCG", "none")


def worth(rank: Tensor, cut: int, metric: str) -> Tensor:
    """m(r) of RR (1/r) or nDCG (1/log2(1 + r)) for float ranks; 0 beyond the cut."""
    value = 1 / torch.log2(1 + rank) if metric == "nDCG" else 1 / rank
    return torch.where(rank <= cut, value, 0)


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
