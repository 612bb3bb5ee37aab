"""Losses against float64 loops, finite differences and a worked example."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_hn import losses


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def slope(function, table, step=1e-5):
    """Central differences of a function of a table of floats, at every cell."""

    def at(row, column, change):
        moved = [list(cells) for cells in table]
        moved[row][column] += change
        return function(moved)

    return [
        [(at(r, c, step) - at(r, c, -step)) / (2 * step) for c in range(len(cells))]
        for r, cells in enumerate(table)
    ]


def star_reference(name, positive, scores, hard, random, alpha):
    """STAR's losses as loops over plain floats."""
    hards, randoms, entropies = [], [], []
    for b, own in enumerate(positive):
        negatives = []
        for m, score in enumerate(scores[b]):
            if hard[b][m]:
                hards.append(softplus(score - own))
            if random[b][m]:
                randoms.append(softplus(score - own))
            if hard[b][m] or random[b][m]:
                negatives.append(score)
        total = sum(math.exp(score - own) for score in negatives)
        entropies.append(math.log(1 + total))
    mean = lambda values: sum(values) / len(values) if values else 0.0
    if name == "weighted":
        return mean(hards) + alpha * mean(randoms)
    return mean(hards + randoms) if name == "pooled" else mean(entropies)


@st.composite
def star_batches(draw):
    """Positive scores, all scores, and disjoint masks with ties and empty rows."""
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    grid = st.integers(-6, 6).map(lambda n: n / 2)
    matrix = st.lists(
        st.lists(grid, min_size=columns, max_size=columns),
        min_size=rows,
        max_size=rows,
    )
    kind = st.lists(
        st.lists(st.sampled_from("hr-"), min_size=columns, max_size=columns),
        min_size=rows,
        max_size=rows,
    )
    positive = draw(st.lists(grid, min_size=rows, max_size=rows))
    kinds = torch.tensor([[ord(k) for k in row] for row in draw(kind)])
    scores = torch.tensor(draw(matrix), dtype=torch.float64)
    hard, random = kinds == ord("h"), kinds == ord("r")
    return torch.tensor(positive, dtype=torch.float64), scores, hard, random


@pytest.mark.parametrize("name", losses.STAR_LOSSES)
@given(batch=star_batches())
@settings(max_examples=60, deadline=None)
def test_star_equals_a_loop_and_its_slope(name, batch):
    positive, scores, hard, random = batch
    extra = {"alpha": 0.7} if name == "weighted" else {}

    masks = (hard.tolist(), random.tolist())

    def reference(table):
        """The loop, of a table with the positive's score in its first column."""
        own, others = [row[0] for row in table], [row[1:] for row in table]
        return star_reference(name, own, others, *masks, alpha=0.7)

    table = torch.cat([positive[:, None], scores], dim=1).requires_grad_()
    loss = losses.STAR_LOSSES[name](table[:, 0], table[:, 1:], hard, random, **extra)
    assert loss.item() == pytest.approx(reference(table.tolist()), rel=1e-12)
    if (hard | random).any():
        assert loss.item() > 0
    loss.backward()
    expected = torch.tensor(slope(reference, table.tolist()), dtype=torch.float64)
    torch.testing.assert_close(table.grad, expected, rtol=1e-6, atol=1e-8)


def lambda_reference(rows, positives, scores_of, cut):
    """LambdaLoss from its definition: ranks by hand, loops over queries and pairs."""
    m = lambda rank: 1 / rank if rank <= cut else 0.0
    per_query = []
    for query, hits in enumerate(rows):
        relevant = positives[query]
        missing = sorted(
            (p for p in relevant if p not in hits),
            key=lambda p: -scores_of[query][p],
        )
        ranking = hits + missing
        pairs = []
        for p in relevant:
            for rank, n in enumerate(hits, 1):
                if n not in relevant:
                    weight = abs(m(ranking.index(p) + 1) - m(rank))
                    gap = scores_of[query][n] - scores_of[query][p]
                    pairs.append(weight * softplus(gap))
        if pairs:
            per_query.append(sum(pairs) / len(pairs))
    return sum(per_query) / len(per_query) if per_query else 0.0


@st.composite
def retrievals(draw):
    """Distinct scores of a small corpus, a depth, a cut, and each query's positives."""
    queries, corpus = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    scores = [
        draw(st.permutations([n / 4 - 1 for n in range(corpus)]))
        for _ in range(queries)
    ]
    rows = st.lists(st.integers(0, corpus - 1), min_size=1, max_size=3, unique=True)
    positives = [draw(rows) for _ in range(queries)]
    return scores, positives, draw(st.integers(1, corpus)), draw(st.integers(1, 14))


def lambda_from_scores(scores, positives, depth, cut):
    """Our loss from a full score matrix [Q, N], as ADORE calls it."""
    width = max(map(len, positives))
    padded = torch.tensor([p + [0] * (width - len(p)) for p in positives])
    real = torch.tensor([[i < len(p) for i in range(width)] for p in positives])
    hits = scores.detach().sort(dim=1, descending=True).indices[:, :depth]
    positive = scores.gather(1, padded)
    known = ((hits[:, None] == padded[:, :, None]) & real[:, :, None]).any(dim=1)
    ranks = losses.positive_ranks(positive, padded, real, hits)
    return losses.lambda_loss(
        positive, ranks, real, scores.gather(1, hits), ~known, cut
    )


@given(retrievals())
@settings(max_examples=120, deadline=None)
def test_lambda_loss_equals_a_loop_and_its_slope(case):
    scores, positives, depth, cut = case
    matrix = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    hits = matrix.detach().sort(dim=1, descending=True).indices[:, :depth].tolist()

    def reference(table):
        return lambda_reference(hits, positives, table, cut)

    actual = lambda_from_scores(matrix, positives, depth, cut)
    assert actual.item() == pytest.approx(reference(scores), rel=1e-12, abs=1e-15)
    actual.backward()
    expected = torch.tensor(slope(reference, scores), dtype=torch.float64)
    torch.testing.assert_close(matrix.grad, expected, rtol=1e-6, atol=1e-8)
    # With more hits than positives and a cut of any depth, some pair has a weight.
    if all(depth > len(p) for p in positives):
        assert actual.item() > 0


def test_star_on_paper():
    """Eq. 13 by hand: one query; s(p) = 1, hard negative 1, random negatives 0 and 2.

    Hard: softplus(1 − 1) = log 2 = 0.693147. Random: softplus(0 − 1) = 0.313262 and
    softplus(2 − 1) = 1.313262, mean 0.813262. With α = 0.5: 0.693147 + 0.406631.
    Pooled: (0.693147 + 0.313262 + 1.313262) / 3 = 0.773224. InfoNCE:
    log(e^1 + e^1 + e^0 + e^2) − 1 = log(13.825620) − 1 = 1.626524.
    """
    positive = torch.tensor([1.0])
    scores = torch.tensor([[1.0, 1.0, 0.0, 2.0]])
    hard = torch.tensor([[False, True, False, False]])
    random = torch.tensor([[False, False, True, True]])
    batch = (positive, scores, hard, random)
    assert losses.star_weighted(*batch, alpha=0.5).item() == pytest.approx(
        1.099778, abs=1e-6
    )
    assert losses.star_pooled(*batch).item() == pytest.approx(0.773224, abs=1e-6)
    assert losses.infonce(*batch).item() == pytest.approx(1.626524, abs=1e-6)


def test_lambda_loss_on_paper():
    """By hand: hits A, B, C with scores 3, 2, 1; B and Z (score 0, not retrieved) count.

    cut 3: m(1) = 1, m(2) = 1/2, m(3) = 1/3, and Z stands at rank 4: m = 0.
    B–A: |1/2 − 1|·softplus(3 − 2) = 0.5·1.313262   = 0.656631
    B–C: |1/2 − 1/3|·softplus(1 − 2) = 0.313262/6   = 0.052210
    Z–A: |0 − 1|·softplus(3 − 0)                    = 3.048587
    Z–C: |0 − 1/3|·softplus(1 − 0) = 1.313262/3     = 0.437754
    Mean of the four pairs: 1.048796.
    """
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    loss = lambda_from_scores(scores, [[1, 3]], depth=3, cut=3)
    assert loss.item() == pytest.approx(1.048796, abs=1e-6)


def test_missing_positives_stand_behind_the_list_by_score():
    hits = torch.tensor([[5, 2, 7]])
    rows = torch.tensor([[4, 2, 9, 0]])
    real = torch.tensor([[True, True, True, False]])
    scores = torch.tensor([[0.1, 2.0, 0.4, 9.0]])
    ranks = losses.positive_ranks(scores, rows, real, hits)
    assert ranks[0, :3].tolist() == [5, 2, 4]


def test_pair_loss_survives_large_gaps():
    gap = torch.tensor([1e4, -1e4])
    loss = losses.pairwise(torch.zeros(2), gap)
    assert loss.tolist() == [1e4, 0.0]
