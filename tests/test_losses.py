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


def distillation_reference(name, positive, scores, pairs, own, teacher):
    """Margin-MSE and KL as loops over plain floats."""
    squares, divergences = [], []
    for b, row in enumerate(scores):
        listed = [m for m, is_pair in enumerate(pairs[b]) if is_pair]
        for m in listed:
            squares.append((positive[b] - row[m] - own[b] + teacher[b][m]) ** 2)
        ours = [positive[b]] + [row[m] for m in listed]
        theirs = [own[b]] + [teacher[b][m] for m in listed]
        total = [sum(math.exp(score) for score in side) for side in (ours, theirs)]
        divergence = 0.0
        for s, t in zip(ours, theirs, strict=True):
            p = math.exp(t) / total[1]
            divergence += p * (math.log(p) - (s - math.log(total[0])))
        if listed:
            divergences.append(divergence)
    values = squares if name == "margin-mse" else divergences
    return sum(values) / len(values) if values else 0.0


@pytest.mark.parametrize("name", losses.DISTILLATIONS)
@given(batch=star_batches(), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_distillation_equals_a_loop_and_its_slope(name, batch, seed):
    positive, scores, pairs, _ = batch
    draw = torch.Generator().manual_seed(seed)
    own = torch.randn(positive.shape, generator=draw, dtype=torch.float64)
    teacher = torch.randn(scores.shape, generator=draw, dtype=torch.float64)
    fixed = (pairs.tolist(), own.tolist(), teacher.tolist())

    def reference(table):
        student = [row[0] for row in table], [row[1:] for row in table]
        return distillation_reference(name, *student, *fixed)

    table = torch.cat([positive[:, None], scores], dim=1).requires_grad_()
    teacher = teacher.masked_fill(~pairs, torch.nan)
    loss = losses.DISTILLATIONS[name](table[:, 0], table[:, 1:], pairs, own, teacher)
    assert loss.item() == pytest.approx(reference(table.tolist()), rel=1e-9, abs=1e-12)
    loss.backward()
    expected = torch.tensor(slope(reference, table.tolist()), dtype=torch.float64)
    torch.testing.assert_close(table.grad, expected, rtol=1e-6, atol=1e-8)


def test_a_student_like_its_teacher_loses_nothing():
    positive, scores = torch.tensor([2.0, 1.0]), torch.tensor([[1.0, 0.5], [3.0, 9.0]])
    pairs = torch.tensor([[True, True], [True, False]])
    for loss in losses.DISTILLATIONS.values():
        # Both losses look at differences: a teacher that is 5 higher teaches the same.
        same = loss(positive, scores, pairs, positive + 5, scores + 5)
        assert same.item() == pytest.approx(0, abs=1e-6)
        assert loss(positive, scores, pairs, positive + 5, scores).item() > 0.1


def lambda_reference(metric, rankings, depth, grades, scores_of, cut):
    """LambdaLoss from its definition: loops over queries and pairs.

    ``rankings`` holds each query's hits and, behind them, the positives not retrieved.
    """

    def m(rank):
        if rank > cut:
            return 0.0
        return 1 / math.log2(1 + rank) if metric == "nDCG" else 1 / rank

    per_query = []
    for query, ranking in enumerate(rankings):
        grade = grades[query]
        best = sorted(grade.values(), reverse=True)
        ideal = sum(g * m(place) for place, g in enumerate(best, 1))
        pairs = []
        for p in grade:
            for rank, n in enumerate(ranking, 1):
                if n in grade and (metric != "nDCG" or grade[n] >= grade[p]):
                    continue
                weight = abs(m(ranking.index(p) + 1) - m(rank))
                if metric == "nDCG":
                    weight *= (grade[p] - grade.get(n, 0)) / ideal
                gap = scores_of[query][n] - scores_of[query][p]
                pairs.append((1 if metric == "none" else weight) * softplus(gap))
        if pairs:
            per_query.append(sum(pairs) / len(pairs))
    return sum(per_query) / len(per_query) if per_query else 0.0


@st.composite
def retrievals(draw):
    """Scores of a small corpus, ties among them; a depth that may be larger than it, a
    cut, and each query's graded positives."""
    queries, corpus = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    grid = st.integers(-6, 6).map(lambda n: n / 4)
    row = st.lists(grid, min_size=corpus, max_size=corpus)
    scores = draw(st.lists(row, min_size=queries, max_size=queries))
    graded = st.dictionaries(
        st.integers(0, corpus - 1), st.integers(1, 3), min_size=1, max_size=3
    )
    grades = [draw(graded) for _ in range(queries)]
    return scores, grades, draw(st.integers(1, corpus + 3)), draw(st.integers(1, 14))


def lambda_from_scores(metric, scores, grades, depth, cut):
    """Our loss from a full score matrix [Q, N], as ADORE calls it."""
    width = max(map(len, grades))
    padded = torch.tensor([[*g, *[0] * (width - len(g))] for g in grades])
    grade = torch.tensor([[*g.values(), *[0] * (width - len(g))] for g in grades])
    hits = scores.detach().sort(dim=1, descending=True, stable=True).indices[:, :depth]
    positive = scores.gather(1, padded)
    real = grade > 0
    known = ((hits[:, None] == padded[:, :, None]) & real[:, :, None]).any(dim=1)
    ranks = losses.positive_ranks(positive, padded, real, hits)
    return losses.lambda_loss(
        positive, ranks, grade, scores.gather(1, hits), ~known, cut, metric
    )


@pytest.mark.parametrize("metric", losses.LAMBDA_METRICS)
@given(case=retrievals())
@settings(max_examples=120, deadline=None)
def test_lambda_loss_equals_a_loop_and_its_slope(metric, case):
    scores, grades, depth, cut = case
    rankings = []
    for row, grade in zip(scores, grades, strict=True):
        hits = sorted(range(len(row)), key=lambda d: (-row[d], d))[:depth]
        missing = [p for p in grade if p not in hits]
        rankings.append(hits + sorted(missing, key=lambda p: -row[p]))

    def reference(table):
        return lambda_reference(metric, rankings, depth, grades, table, cut)

    matrix = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    actual = lambda_from_scores(metric, matrix, grades, depth, cut)
    assert actual.item() == pytest.approx(reference(scores), rel=1e-12, abs=1e-15)
    actual.backward()
    expected = torch.tensor(slope(reference, scores), dtype=torch.float64)
    torch.testing.assert_close(matrix.grad, expected, rtol=1e-6, atol=1e-8)
    # With more hits than positives and a cut of any depth, some pair has a weight.
    if all(min(depth, len(scores[0])) > len(g) for g in grades):
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


@pytest.mark.parametrize(
    ("metric", "expected"), [("RR", 1.048796), ("nDCG", 0.705308), ("none", 1.497093)]
)
def test_lambda_loss_on_paper(metric, expected):
    """By hand: hits A, B, C with scores 3, 2, 1; B and Z (score 0, not retrieved) count.

    The pair losses are B–A softplus(3 − 2) = 1.313262, B–C softplus(1 − 2) = 0.313262,
    Z–A softplus(3 − 0) = 3.048587 and Z–C softplus(1 − 0) = 1.313262; their mean, the
    unweighted loss, is 1.497093.

    RR, cut 3: m(1) = 1, m(2) = 1/2, m(3) = 1/3, and Z stands at rank 4: m = 0.
    B–A: |1/2 − 1|·1.313262   = 0.656631
    B–C: |1/2 − 1/3|·0.313262 = 0.052210
    Z–A: |0 − 1|·3.048587     = 3.048587
    Z–C: |0 − 1/3|·1.313262   = 0.437754
    Mean of the four pairs: 1.048796.

    nDCG, cut 3, grades B 1 and Z 2: m(1) = 1, m(2) = 0.630930, m(3) = 0.5, m(4) = 0;
    ideal DCG = 2·1 + 1·0.630930 = 2.630930. Z–B is a pair too: softplus(2) = 2.126928.
    B–A: 1·0.369070·1.313262 = 0.484686
    B–C: 1·0.130930·0.313262 = 0.041015
    Z–A: 2·1·3.048587        = 6.097175
    Z–B: 1·0.630930·2.126928 = 1.341942
    Z–C: 2·0.5·1.313262      = 1.313262
    Sum 9.278080 / 2.630930 = 3.526541; mean of the five pairs: 0.705308.
    """
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    loss = lambda_from_scores(metric, scores, [{1: 1, 3: 2}], depth=3, cut=3)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


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
