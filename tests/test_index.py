"""Vectors read out of faiss folders, against the scores of the index itself."""

import json

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


def assert_scores_are_dot_products(folder, order=range(PASSAGES)) -> None:
    """Docid by docid, for what Pyserini would list: docids[id] with the raw score.

    To 2e-6 of the largest score: 32-bit rounding. (bfloat16 queries: to 0.5%.)
    ``order`` has the number of the docid of each vector of the sample.
    """
    before = digest(folder / "index")
    vectors = read_index(folder)
    assert digest(folder / "index") == before
    assert sorted(path.name for path in folder.iterdir()) == ["docid", "index"]
    assert vectors.encoder == f"index:{before}"
    assert vectors.matrix.shape == (PASSAGES, DIMENSION)
    row = {docid: number for number, docid in enumerate(vectors.docids)}
    # What went in comes out as it is stored.
    again = vectors.quantise(sample(PASSAGES, 0))
    stored = vectors.matrix.numpy()
    put_in = [row[f"d{n}"] for n in order]
    same = np.isclose(again, stored[put_in], atol=1e-5).all(axis=1)
    assert same.mean() > 0.99
    index = faiss.read_index(str(folder / "index"))
    docids = (folder / "docid").read_text().split()
    queries = sample(20, 1)
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
    assert_scores_are_dot_products(tmp_path / kind, ids)


def shifted() -> faiss.Index:
    """Ids from 1 on, as a database might count."""
    return made("IDMap,Flat", np.arange(PASSAGES) + 1)


def doubled() -> faiss.Index:
    """One id twice in an inverted file, another not at all."""
    return made("IVF8,Flat", np.arange(PASSAGES) // 2 * 2)


def broken() -> faiss.Index:
    index = faiss.IndexFlatIP(DIMENSION)
    vectors = sample(PASSAGES, 0)
    vectors[7, 3] = np.nan
    index.add(vectors)
    return index


def euclidean(kind: str) -> faiss.Index:
    """As pyserini.index.faiss makes it with `--metric l2`, and with `--hnsw --pq`."""
    if kind == "flat":
        index = faiss.IndexFlatL2(DIMENSION)
    else:
        index = faiss.IndexHNSWPQ(DIMENSION, 6, 16, 4)
        index.metric_type = IP
        index.train(sample(PASSAGES, 0))
    index.add(sample(PASSAGES, 0))
    return index


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: euclidean("flat"), "IndexFlatL2 ranks by a distance"),
        (lambda: euclidean("hnsw-pq"), "IndexPQ ranks by a distance, not by inner"),
        (lambda: made("PCA12,Flat"), "PCAMatrix shifts queries by a mean"),
        (lambda: made("L2norm,Flat"), "NormalizationTransform does more to a query"),
        (lambda: made("PQ6x4fs"), "IndexPQFastScan rounds its scores"),
        (lambda: made("RaBitQ"), "IndexRaBitQ scores .* away from the dot products"),
        (shifted, "its ids are not 0 to 999"),
        (doubled, "its ids are not 0 to 999"),
        (broken, "index: the vector of 'd7' is not finite"),
    ],
)
def test_what_has_no_vectors_is_refused(make, message, tmp_path):
    put(make(), tmp_path / "x")
    with pytest.raises(DenseHNError, match=message) as error:
        read_index(tmp_path / "x")
    assert "\n" not in str(error.value)


def test_pca_scores_are_no_dot_products(tmp_path):
    """Why it is refused: faiss's own way back gives other scores, and another order."""
    index = made("PCA12,Flat")
    queries = sample(20, 1)
    scores, found = index.search(queries, 10)
    back = queries @ index.reconstruct_n(0, PASSAGES).T
    gaps = scores - np.take_along_axis(back, found, axis=1)
    assert np.abs(gaps).max() > 0.1
    assert gaps.std(axis=1).min() > 0.01
    # A matrix alone is fine.
    transform = faiss.downcast_VectorTransform(index.chain.at(0))
    transform.have_bias = False
    put(index, tmp_path / "x")
    queries = sample(20, 1)
    scores, found = index.search(queries, 10)
    ours = read_index(tmp_path / "x").matrix.numpy()
    ours = np.take_along_axis(queries @ ours.T, found, axis=1)
    np.testing.assert_allclose(ours, scores, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("docid", lambda b: b"", "no docid in this file"),
        ("docid", lambda b: b"\xff" + b, "docid: not UTF-8"),
        ("docid", lambda b: b[:-5], "index and 999 lines in docid"),
        ("docid", lambda b: b + b"d5\n", "docid:1001: docid 'd5' occurs twice"),
        ("docid", lambda b: b"\n" + b, "docid:1: docid '' is empty"),
        ("docid", lambda b: b"a b" + b, "docid:1: docid 'a bd0' is empty or has white"),
        ("index", lambda b: b[:-9], "index: faiss cannot read it .* is it whole"),
        ("index", lambda b: b"", "index: faiss cannot read it"),
        ("index", lambda b: b"{}", "index: faiss cannot read it"),
        ("index", lambda b: b"IBxF" + b, "index: a binary index"),
    ],
)
def test_files_that_cannot_be_are_refused(name, change, message, tmp_path):
    put(made("Flat"), tmp_path / "x")
    path = tmp_path / "x" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DenseHNError, match=message) as error:
        read_index(tmp_path / "x")
    assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(DenseHNError, match=f"{name}: part of a faiss index folder not"):
        read_index(tmp_path / "x")


@pytest.mark.parametrize(
    ("kind", "at", "other", "reason"),
    [
        # What its bytes say: that it was not trained, and that the index in it has vectors
        # of another length. Hypothesis found both.
        ("PQ6x4np", 32, b"\0", "is_trained"),
        ("IDMap,Flat", 4, b"\x10\x0d\0\0", "could not be broadcast"),
    ],
)
def test_indexes_that_contradict_themselves_are_refused(
    kind, at, other, reason, tmp_path
):
    numbered = np.arange(PASSAGES) if kind.startswith("IDMap") else None
    put(made(kind, numbered), tmp_path / "x")
    path = tmp_path / "x" / "index"
    content = bytearray(path.read_bytes())
    content[at : at + len(other)] = other
    path.write_bytes(content)
    with pytest.raises(DenseHNError, match=f"faiss cannot read it .*{reason}"):
        read_index(tmp_path / "x")


def test_a_manifest_names_the_encoder(tmp_path):
    put(made("SQ8"), tmp_path / "x")
    said = {"encoder": "e", "corpus": "c", "passages": PASSAGES, "dimension": DIMENSION}
    said |= {"vectors": {"form": "sq8"}, "dense_hn": "1", "command": "x"}
    path = tmp_path / "x" / "manifest.json"
    path.write_text(json.dumps(said))
    vectors = read_index(tmp_path / "x")
    assert (vectors.encoder, vectors.corpus) == ("e", "c")
    path.write_text(json.dumps(said | {"passages": 999}))
    with pytest.raises(
        DenseHNError, match="says 999 passages of 24 dimensions, and the"
    ):
        read_index(tmp_path / "x")
    files = [digest(tmp_path / "x" / name) for name in ("index", "docid")]
    path.write_text(json.dumps(said | {"files": files}))
    assert read_index(tmp_path / "x").encoder == "e"
    path.write_text(json.dumps(said | {"files": files[::-1]}))
    with pytest.raises(DenseHNError, match="is of another index than the one beside"):
        read_index(tmp_path / "x")
    for text in ("{", "[]", '{"encoder": "e"}'):
        path.write_text(text)
        with pytest.raises(DenseHNError, match="manifest.json: not as dense_hn.export"):
            read_index(tmp_path / "x")


def test_large_indexes_are_read_in_chunks(tmp_path, monkeypatch):
    ids = np.random.default_rng(3).permutation(PASSAGES)
    put(made("IDMap,OPQ6,PQ6x4np", ids), tmp_path / "x")
    whole = read_index(tmp_path / "x").matrix.numpy()
    monkeypatch.setattr("dense_hn.index.CHUNK", 300)
    # Products of other shapes may round otherwise.
    chunked = read_index(tmp_path / "x").matrix.numpy()
    np.testing.assert_allclose(chunked, whole, rtol=0, atol=1e-6)
