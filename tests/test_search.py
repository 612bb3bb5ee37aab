"""Exact search against numpy's stable sort and against faiss."""

import faiss
import numpy as np
import pytest
import torch

from dense_hn import search


def reference(queries, vectors, k):
    """Best first, equal scores by row: a stable sort of all scores."""
    scores = queries @ vectors.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.mark.parametrize("chunk", [1, 3, 7, 50, 1000])
@pytest.mark.parametrize("k", [1, 5, 49, 50, 80])
def test_ties_are_ordered_by_row_for_every_chunk(chunk, k):
    rng = np.random.default_rng(k)
    # Small whole numbers: exact products, and many ties at every place.
    queries = rng.integers(-2, 3, (6, 4)).astype(np.float32)
    vectors = rng.integers(-2, 3, (50, 4)).astype(np.float32)
    scores, rows = search.top_k(
        torch.from_numpy(queries), torch.from_numpy(vectors), k, chunk
    )
    expected_scores, expected_rows = reference(queries, vectors, min(k, 50))
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_array_equal(rows, expected_rows)


def test_equals_faiss():
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((40, 32), np.float32)
    vectors = rng.standard_normal((5000, 32), np.float32)
    index = faiss.IndexFlatIP(32)
    index.add(vectors)
    expected_scores, expected_rows = index.search(queries, 100)
    scores, rows = search.top_k(
        torch.from_numpy(queries), torch.from_numpy(vectors), 100, chunk=700
    )
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    # Where two scores are equal to the last bits, faiss may have them the other way.
    assert (rows.numpy() == expected_rows).mean() > 0.999
