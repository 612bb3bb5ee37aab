"""Negatives: positives out, windows kept, draws by seed, epoch and query."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from dense_hn.negatives import RandomNegatives, StaticNegatives

RUN = {"q": {"a": 9.0, "b": 8.0, "c": 7.0, "d": 6.0, "e": 5.0}, "r": {"a": 1.0}}
EXCLUDED = {"q": {"b"}, "r": {"a"}}


def static(*runs, depth=5, number=10, seed=1):
    return StaticNegatives(runs, EXCLUDED, depth, number, seed)


def test_positives_are_removed_after_the_cut():
    negatives = static(RUN, depth=4)
    assert sorted(negatives.draw("q", 0)) == ["a", "c", "d"]
    assert "q" in negatives
    assert "r" not in negatives


def test_runs_are_merged_and_a_document_counts_once():
    other = {"q": {"z": 3.0, "a": 2.0, "b": 1.0}}
    assert sorted(static(RUN, other, depth=3).draw("q", 0)) == ["a", "c", "z"]


def test_draws_are_uniform_and_repeatable():
    draws = [tuple(static(RUN, number=1).draw("q", epoch)) for epoch in range(4000)]
    again = static(RUN, number=1)
    assert draws == [tuple(again.draw("q", epoch)) for epoch in range(4000)]
    counts = Counter(draws)
    assert set(counts) == {("a",), ("c",), ("d",), ("e",)}
    # 4000 draws of one in four: 1000 each, standard deviation 27.
    assert all(abs(count - 1000) < 140 for count in counts.values())
    other = static(RUN, number=1, seed=2)
    assert draws != [tuple(other.draw("q", epoch)) for epoch in range(4000)]


def test_random_documents_are_drawn_uniformly_from_what_is_left():
    docids = list("abcdefgh")
    negatives = RandomNegatives(docids, EXCLUDED, number=2, seed=1)
    draws = [tuple(negatives.draw("q", epoch)) for epoch in range(4000)]
    assert all(len(set(draw)) == 2 for draw in draws)
    counts = Counter(docid for draw in draws for docid in draw)
    assert set(counts) == set("acdefgh")
    # 8000 of seven: 1143 each, standard deviation 29.
    assert all(abs(count - 8000 / 7) < 150 for count in counts.values())
    again = RandomNegatives(docids, EXCLUDED, number=2, seed=1)
    assert draws == [tuple(again.draw("q", epoch)) for epoch in range(4000)]


@given(
    st.integers(1, 12),
    st.sets(st.integers(0, 11)),
    st.integers(0, 14),
    st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_nothing_excluded_is_drawn_and_as_much_as_there_is(size, out, number, seed):
    docids = [f"d{n}" for n in range(size)]
    excluded = {"q": {f"d{n}" for n in out}}
    left = set(docids) - excluded["q"]
    drawn = RandomNegatives(docids, excluded, number, seed).draw("q", 0)
    assert len(drawn) == len(set(drawn)) == min(number, len(left))
    assert set(drawn) <= left
    run = {"q": {docid: float(n) for n, docid in enumerate(docids)}}
    hits = StaticNegatives([run], excluded, size, number, seed).draw("q", 0)
    assert len(hits) == len(set(hits)) == min(number, len(left))
    assert set(hits) <= left
