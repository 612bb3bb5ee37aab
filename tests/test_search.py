"""Exact search against numpy's stable sort in float64 and against faiss."""

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed, multiprocessing

from dense_hn import DenseHNError, block_search, search


def reference(queries, vectors, k):
    """Best first, equal scores by row: a stable sort of all scores, in float64."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


def whole_numbers(rng, *shape):
    """Small ones: exact products, and many ties at every place."""
    return rng.integers(-2, 3, shape).astype(np.float32)


@pytest.mark.parametrize("chunk", [1, 3, 7, 50, 1000, None])
@pytest.mark.parametrize("k", [1, 5, 49, 50, 80])
def test_ties_are_ordered_by_row_for_every_chunk(chunk, k):
    rng = np.random.default_rng(k)
    queries, vectors = whole_numbers(rng, 6, 4), whole_numbers(rng, 50, 4)
    scores, rows = search.top_k(
        torch.from_numpy(queries), torch.from_numpy(vectors), k, chunk
    )
    expected_scores, expected_rows = reference(queries, vectors, min(k, 50))
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_array_equal(rows, expected_rows)


@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 9),
    passages=st.integers(1, 900),
    dimension=st.integers(1, 20),
    k=st.integers(1, 120),
    chunk=st.integers(1, 400),
    half=st.booleans(),
)
def test_any_shape(seed, queries, passages, dimension, k, chunk, half):
    rng = np.random.default_rng(seed)
    asked = whole_numbers(rng, queries, dimension)
    vectors = whole_numbers(rng, passages, dimension)
    held = torch.from_numpy(vectors)
    scores, rows = search.top_k(
        torch.from_numpy(asked), held.half() if half else held, k, chunk
    )
    expected_scores, expected_rows = reference(asked, vectors, k)
    assert scores.dtype == torch.float32
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_array_equal(rows, expected_rows)


@pytest.mark.parametrize("order", ["falling", "rising", "level"])
def test_passages_in_the_order_of_their_scores(order):
    """None of a chunk is a hit, or all of it, or all scores tie."""
    height = np.arange(40_000, dtype=np.float32)
    height = {"falling": -height, "rising": height, "level": 0 * height}[order]
    vectors = torch.from_numpy(np.stack([height, np.ones_like(height)], axis=1))
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    _, rows = search.top_k(queries, vectors, 100)
    expected = reference(queries.numpy(), vectors.numpy(), 100)[1]
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("passages", [5000, 40_003])
def test_equals_faiss(passages):
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((40, 32), np.float32)
    vectors = rng.standard_normal((passages, 32), np.float32)
    index = faiss.IndexFlatIP(32)
    index.add(vectors)
    expected_scores, expected_rows = index.search(queries, 100)
    scores, rows = search.top_k(
        torch.from_numpy(queries), torch.from_numpy(vectors), 100
    )
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    # Where two scores are equal to the last bits, faiss may have them the other way.
    assert (rows.numpy() == expected_rows).mean() > 0.999


@pytest.mark.parametrize("chunk", [None, 999])
def test_scores_are_exact_to_their_last_digit(chunk):
    """Also of vectors that all point one way, where rounding adds up."""
    rng = np.random.default_rng(0)
    vectors = (1 + rng.standard_normal((20_000, 768)) / 10).astype(np.float32)
    queries = (1 + rng.standard_normal((20, 768)) / 10).astype(np.float32)
    expected_scores, expected_rows = reference(queries, vectors, 100)
    scores, rows = search.top_k(
        torch.from_numpy(queries), torch.from_numpy(vectors), 100, chunk
    )
    np.testing.assert_allclose(scores, expected_scores, rtol=1.2e-7)
    assert (rows.numpy() == expected_rows).mean() > 0.99


@pytest.mark.parametrize("queries", [1, 32])
@pytest.mark.parametrize("passages", [16_385, 33_000])
def test_copies_of_a_passage_tie_wherever_they_stand(queries, passages):
    """Also in a last chunk of one row, whose products alone would be rounded otherwise."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((passages, 100)).astype(np.float32)
    copies = np.sort(rng.choice(passages - 1, 299, replace=False)).tolist()
    copies.append(passages - 1)
    vectors[copies] = vectors[copies[0]]
    asked = vectors[copies[0]] + rng.standard_normal((queries, 100)) / 10
    scores, rows = search.top_k(
        torch.from_numpy(asked.astype(np.float32)), torch.from_numpy(vectors), 300
    )
    assert rows.tolist() == [copies] * queries
    assert (scores == scores[:, :1]).all()


@pytest.mark.parametrize("where", [3, 20_000])
def test_what_is_no_number_is_refused(where):
    vectors = torch.ones(20_001, 4)
    vectors[where, 2] = torch.nan
    with pytest.raises(DenseHNError, match="not finite"):
        search.top_k(torch.ones(2, 4), vectors, 5)


def _rank(rank, ranks, store, queries, shards, k, folder):
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=ranks
    )
    first = sum(map(len, shards[:rank]))
    found = search.top_k_of_shards(queries, shards[rank], first, k)
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("sizes", [(30, 31), (3, 50, 8)])
def test_shards_give_what_the_whole_does(sizes, tmp_path):
    rng = np.random.default_rng(1)
    queries = torch.from_numpy(whole_numbers(rng, 7, 5))
    vectors = torch.from_numpy(whole_numbers(rng, 61, 5))
    for k in (10, 70):
        folder = tmp_path / str(k)
        folder.mkdir()
        multiprocessing.spawn(
            _rank,
            (
                len(sizes),
                folder / "store",
                queries,
                vectors.split(sizes),
                k,
                folder,
            ),
            nprocs=len(sizes),
        )
        expected = search.top_k(queries, vectors, k)
        for rank in range(len(sizes)):
            for ours, whole in zip(
                torch.load(folder / f"{rank}.pt"), expected, strict=True
            ):
                assert torch.equal(ours, whole)


def test_a_kernel_without_memory_is_tried_again(monkeypatch, caplog):
    """One shortage says nothing of the next search."""
    pytest.importorskip("triton")
    tried = []

    def short(*_):
        tried.append(1)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(block_search, "top_k", short)
    for _ in range(2):
        assert search._by_triton(torch.ones(1, 2), torch.ones(3, 2), 1) is None
    assert len(tried) == 2 and not caplog.records
