"""Static negatives: positives out, depth kept, draws by seed, epoch and query."""

from collections import Counter

from dense_hn.negatives import StaticNegatives

RUN = {"q": {"a": 9.0, "b": 8.0, "c": 7.0, "d": 6.0, "e": 5.0}, "r": {"a": 1.0}}
QRELS = {"q": {"b": 1, "c": 0}, "r": {"a": 1}}


def test_positives_are_removed_after_the_cut():
    negatives = StaticNegatives([RUN], QRELS, depth=4, seed=1)
    assert sorted(negatives.draw("q", 0, 10)) == ["a", "c", "d"]
    assert "q" in negatives
    assert "r" not in negatives


def test_runs_are_merged_and_a_document_counts_once():
    other = {"q": {"z": 3.0, "a": 2.0, "b": 1.0}}
    negatives = StaticNegatives([RUN, other], QRELS, depth=3, seed=1)
    assert sorted(negatives.draw("q", 0, 10)) == ["a", "c", "z"]


def test_draws_are_uniform_and_repeatable():
    negatives = StaticNegatives([RUN], QRELS, depth=5, seed=1)
    draws = [tuple(negatives.draw("q", epoch, 1)) for epoch in range(4000)]
    again = StaticNegatives([RUN], QRELS, depth=5, seed=1)
    assert draws == [tuple(again.draw("q", epoch, 1)) for epoch in range(4000)]
    counts = Counter(draws)
    assert set(counts) == {("a",), ("c",), ("d",), ("e",)}
    # 4000 draws of one in four: 1000 each, standard deviation 27.
    assert all(abs(count - 1000) < 140 for count in counts.values())
    other = StaticNegatives([RUN], QRELS, depth=5, seed=2)
    assert draws != [tuple(other.draw("q", epoch, 1)) for epoch in range(4000)]
