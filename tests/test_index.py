"""Vectors read out of faiss folders, against the scores of the index itself."""


import faiss
import numpy as np
import pytest

from dense_hn import DenseHNError
from dense_hn.files import digest
from dense_hn.index import read_index

DIMENSION, PASSAGES = 24, 1000
IP = faiss.METRIC_INNER_PRODUCT


def sample(number: int, seed: int) -> np.ndarray:
    """[number, 24] float32, of different lengths and not centred."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((number, DIMENSION)) + 0.2).astype(np.float32)


def put(index: faiss.Index, folder, docids=None) -> None:
    """Write a folder as pyserini.index.faiss leaves it."""
    folder.mkdir(exist_ok=True)
    faiss.write_index(index, str(folder / "index"))
    docids = docids or [f"d{n}" for n in range(index.ntotal)]
    (folder / "docid").write_text("".join(f"{docid}\n" for docid in docids))


def made(kind: str, ids: np.ndarray | None = None) -> faiss.Index:
    """A trained index of this kind over the sample, with these ids if any are given."""
    index = faiss.index_factory(DIMENSION, kind, IP)
    vectors = sample(PASSAGES, 0)
    index.train(vectors)
    if ids is None:
        index.add(vectors)
    else:
        index.add_with_ids(vectors, ids)
    return index


def hnsw_pq() -> faiss.Index:
    """HNSW over PQ by inner product, which index_factory does not make."""
    index = faiss.IndexHNSWPQ(DIMENSION, 6, 16, 4, IP)
    index.train(sample(PASSAGES, 0))
    index.add(sample(PASSAGES, 0))
    return index


KINDS = ["Flat", "SQfp16", "SQbf16", "SQ8", "PQ6x4np", "HNSW16", "HNSW16,SQfp16"]
KINDS += ["HNSW16,SQ8", "HNSWPQ", "IVF8,Flat", "IVF8,PQ6x4np", "IVF8,SQ8", "RQ3x4"]
KINDS += ["PQ6x4np,RFlat", "PQ6x4np,Refine(SQ8)", "IVF8,PQ6x4fs,RFlat", "RR12,SQ8"]
KINDS += ["OPQ6,PQ6x4np", "OPQ6_12,PQ6x4np", "OPQ6,IVF8,PQ6x4np", "OPQ6,PQ6x4np,RFlat"]
NUMBERED = [
    "IDMap,Flat",
    "IDMap2,SQ8",
    "IVF8,Flat",
    "IVF8,PQ6x4np",
    "OPQ6,IVF8,PQ6x4np",
]
NUMBERED += ["IDMap,OPQ6_12,PQ6x4np", "IDMap2,IVF8,SQ8", "IDMap,HNSW16"]


def assert_scores_are_dot_products(folder) -> None:
    """Docid by docid, for what Pyserini would list: docids[id] with the raw score.

    To 2e-6 of the largest score: 32-bit rounding. (bfloat16 queries: to 0.5%.)
    """
    before = digest(folder / "index")
    vectors = read_index(folder)
    assert digest(folder / "index") == before
    assert sorted(path.name for path in folder.iterdir()) == ["docid", "index"]
    assert vectors.encoder == f"index:{before}"
    assert vectors.matrix.shape == (PASSAGES, DIMENSION)
    index = faiss.read_index(str(folder / "index"))
    docids = (folder / "docid").read_text().split()
    queries = sample(20, 1)
    row = {docid: number for number, docid in enumerate(vectors.docids)}
    matrix = vectors.matrix.numpy().astype(np.float64)
    compared = 0
    for query, scores, found in zip(queries, *index.search(queries, 50), strict=True):
        for score, id_ in zip(scores, found, strict=True):
            if id_ >= 0:
                ours = matrix[row[docids[id_]]] @ query.astype(np.float64)
                rounding = 5e-3 if "bf16" in folder.name else 2e-6
                assert abs(ours - score) <= rounding * np.abs(scores).max()
                compared += 1
    assert compared > 500


@pytest.mark.parametrize("kind", KINDS)
def test_dot_products_are_the_scores_of_the_index(kind, tmp_path):
    put(hnsw_pq() if kind == "HNSWPQ" else made(kind), tmp_path / kind)
    assert_scores_are_dot_products(tmp_path / kind)


@pytest.mark.parametrize("kind", NUMBERED)
def test_ids_are_the_numbers_of_docid_lines(kind, tmp_path):
    ids = np.random.default_rng(3).permutation(PASSAGES)
    put(made(kind, ids), tmp_path / kind)
    assert_scores_are_dot_products(tmp_path / kind)
