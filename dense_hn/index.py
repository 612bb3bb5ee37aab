"""Passage vectors out of a faiss folder that Pyserini opens (``index`` and ``docid``).

What is read back is what the index scores with: for every query vector q and hit, the
index's score is the dot product of q and the row returned here. For a quantised index
that is the decoded code, not the vector that once went in.

* ``IndexPreTransform``: the index scores <Aq, y>, which is <q, Aᵀy>, so codes are decoded
  and multiplied with A's transpose. (For OPQ, whose rows are orthonormal, faiss's own
  reverse transform is the same.) PCA subtracts a mean from queries too: its scores,
  <Aq + b, y>, are no dot product with q, and such an index is refused.
* ``IndexRefine``: scores are those of its second, finer index.
* ``IndexIDMap`` and ``IndexIVF`` number their vectors with ids. Pyserini names a hit with
  id i by line i of ``docid``, counted from 0, and so do we.

An index without a ``manifest.json`` (our exports write one) does not say which encoder
made it. Its encoder is then called ``index:`` and the SHA-256 of the index file, which a
query encoder that is trained for it remembers.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dense_hn import DenseHNError
from dense_hn.columns import Docids
from dense_hn.export import faiss_index, manifest
from dense_hn.export.faiss_index import INDEX
from dense_hn.files import digest, require_file, require_folder
from dense_hn.ids import read_docids
from dense_hn.quantised import Codes, codes_of
from dense_hn.vectors import DOCIDS, MANIFEST, UNKNOWN, Vectors

if TYPE_CHECKING:
    import faiss

CHUNK = 65_536
# Vectors that are searched for, to compare the index's scores with ours, and how far
# they may differ, as a share of the largest score: bfloat16 rounds by 0.4%.
PROBES = 16
TOLERANCE = 0.01
INSTEAD = (
    "encode the corpus with `python -m dense_hn.encode` and give --vectors instead"
)


@dataclass(frozen=True, slots=True)
class Quantiser:
    """What an index would hold of vectors."""

    # Kept, empty, because what is inside goes with it.
    index: "faiss.Index"
    # As _peel returns them.
    leaf: "faiss.Index"
    matrix: np.ndarray | None

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """[M, D] float32 to the same, quantised and read back."""
        inner = vectors if self.matrix is None else vectors @ self.matrix.T
        inner = self.leaf.sa_decode(self.leaf.sa_encode(np.ascontiguousarray(inner)))
        return inner if self.matrix is None else inner @ self.matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexVectors(Vectors):
    """The passage vectors of an index, in the order of its ``docid`` file."""

    quantise: Quantiser
    # SHA-256 of the files ``index`` and ``docid``.
    files: list[str]
    # Where it is product-quantised; ``matrix`` is what they stand for.
    codes: Codes | None


def read_index(folder: str | Path) -> IndexVectors:
    """Read the vectors of a folder that holds ``index`` and ``docid``; writes nothing.

    Peak memory is the matrix [N, D] in float32 and the index, and of a product-quantised
    one its codes again.

    Raises:
        DenseHNError: a file is missing or broken, docids and vectors differ in number,
            a docid is empty, has white space or occurs twice, the index does not score
            by inner product or not by a dot product with the query as it is, its ids
            are no numbers of lines, a vector is not finite.
    """
    folder = require_folder(folder, "faiss index folder")
    path = require_file(folder / INDEX, "part of a faiss index folder")
    docids = _docids(folder / DOCIDS)
    with _whole(path):
        index = _open(path)
        if index.ntotal != len(docids):
            raise DenseHNError(
                f"{folder}: {index.ntotal} vectors in index and {len(docids)} lines in "
                "docid; the two files are not of one indexing, make both anew"
            )
        leaf, lines, matrix = _peel(index, path)
        vectors = np.empty((index.ntotal, index.d), np.float32)
        for start in range(0, index.ntotal, CHUNK):
            to = lines[start : start + CHUNK]
            part = leaf.reconstruct_n(start, len(to))
            vectors[to] = part if matrix is None else part @ matrix
            broken = to[~np.isfinite(vectors[to]).all(axis=1)]
            if broken.size:
                raise DenseHNError(
                    f"{path}: the vector of {docids[broken[0]]!r} is not finite; encode the "
                    "corpus anew"
                )
        _require_same_scores(index, vectors, path)
        codes = codes_of(leaf, lines, matrix)
    files = [digest(path), digest(folder / DOCIDS)]
    known = _manifest(folder, vectors.shape, files)
    encoder, corpus = known or (UNKNOWN + files[0], "")
    index.reset()
    return IndexVectors(
        docids,
        torch.from_numpy(vectors),
        encoder,
        corpus,
        folder,
        quantise=Quantiser(index, leaf, matrix),
        files=files,
        codes=codes,
    )


def read_vectors(folder: str | Path) -> Vectors:
    """Those of a vectors folder, or of a faiss folder, by what is in it.

    Raises:
        DenseHNError: as Vectors.load and :func:`read_index`.
    """
    coded = (Path(folder) / INDEX).is_file()
    return read_index(folder) if coded else Vectors.load(folder)


def coded(vectors: Vectors, form: str, parameters: Mapping[str, int]) -> Codes:
    """The codes of vectors, as an export in this form would have them.

    Args:
        vectors: the passages.
        form: of faiss_index.CODED.
        parameters: as faiss_index.settle returns them.
    """
    index = faiss_index.build(vectors.matrix, form, parameters)
    return codes_of(*_peel(index, vectors.path))


def _docids(path: Path) -> Docids:
    """The docids, each of one vector."""
    docids = Docids.of(read_docids(path, "part of a faiss index folder"))
    again = docids.again()
    if again is not None:
        raise DenseHNError(
            f"{path}:{again + 1}: docid {docids[again]!r} occurs twice; ids must be "
            "unique, make the index anew"
        )
    return docids


def _open(path: Path) -> "faiss.Index":
    faiss_index.require_faiss()
    import faiss

    with open(path, "rb") as file:
        if file.read(2) == b"IB":
            raise DenseHNError(
                f"{path}: a binary index, which compares bits and has no vectors to "
                f"train with; {INSTEAD}"
            )
    if not hasattr(faiss, "set_deserialization_vector_byte_limit"):
        return faiss.read_index(str(path))
    # No part of an index is larger than its file; a broken one may ask for all memory.
    before = faiss.get_deserialization_vector_byte_limit()
    faiss.set_deserialization_vector_byte_limit(path.stat().st_size)
    try:
        return faiss.read_index(str(path))
    finally:
        faiss.set_deserialization_vector_byte_limit(before)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Say of what faiss makes of a broken file that it may be one.

    Raises:
        DenseHNError: faiss raised something.
    """
    try:
        yield
    except (RuntimeError, MemoryError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["no memory"])[-1]
        raise DenseHNError(
            f"{path}: faiss cannot read it ({reason}); is it whole, and is there memory "
            "for it? fetch it anew"
        ) from None


def _peel(
    index: "faiss.Index", path: Path
) -> tuple["faiss.Index", np.ndarray, np.ndarray | None]:
    """What holds the vectors that an index scores with, inside what is around it.

    Returns:
        That index; the line of docid [N] for each of its vectors, as reconstruct_n
        numbers them; the matrix [d, D] that takes a query to its space (None: the same).

    Raises:
        DenseHNError: the scores are no dot products, or the ids no lines.
    """
    import faiss

    lines, matrix = np.arange(index.ntotal), None
    while True:
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise DenseHNError(
                f"{path}: {type(index).__name__} ranks by a distance, not by inner "
                "product, and Pyserini would take it for a score (so it is with its own "
                "`--hnsw --pq` and `--metric l2`); make the index anew with inner product"
            )
        if isinstance(index, faiss.IndexIDMap):
            lines = lines[_lines(faiss.vector_to_array(index.id_map), path)]
            inner = index.index
        elif isinstance(index, faiss.IndexPreTransform):
            for number in range(index.chain.size()):
                one = _matrix(index.chain.at(number), path)
                matrix = one if matrix is None else one @ matrix
            inner = index.index
        elif isinstance(index, faiss.IndexRefine):
            inner = index.refine_index
        else:
            # A graph's vectors are in its storage.
            inner = getattr(index, "storage", None)
        if inner is None:
            break
        index = faiss.downcast_index(inner)
    if isinstance(index, (faiss.IndexFastScan, faiss.IndexIVFFastScan)):
        raise DenseHNError(
            f"{path}: {type(index).__name__} rounds its scores, so that no vectors give "
            f"them; {INSTEAD}"
        )
    if isinstance(index, faiss.IndexIVF):
        # reconstruct_n goes by these ids, and leaves rows of others as they are.
        lists = index.invlists
        held = [
            faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))
            for number in range(index.nlist)
            if lists.list_size(number)
        ]
        _lines(np.concatenate(held), path)
    return index, lines, matrix


def _lines(ids: np.ndarray, path: Path) -> np.ndarray:
    """The ids of N vectors, if each is the number of a line."""
    if not np.array_equal(np.sort(ids), np.arange(len(ids))):
        raise DenseHNError(
            f"{path}: its ids are not 0 to {len(ids) - 1}, each once, as the lines of "
            "docid are numbered; Pyserini would name other documents, make it anew"
        )
    return ids


def _matrix(transform: "faiss.VectorTransform", path: Path) -> np.ndarray:
    """[d_out, d_in] what a transform multiplies a query with, where that is all it does."""
    import faiss

    transform = faiss.downcast_VectorTransform(transform)
    name = type(transform).__name__
    if not isinstance(transform, faiss.LinearTransform):
        raise DenseHNError(
            f"{path}: {name} does more to a query than to multiply it with a matrix, so "
            f"that scores are no dot products with it; {INSTEAD}"
        )
    if transform.have_bias and faiss.vector_to_array(transform.b).any():
        raise DenseHNError(
            f"{path}: {name} shifts queries by a mean, so that scores are no dot "
            f"products with them; {INSTEAD}, or make the index anew with OPQ or RR"
        )
    matrix = faiss.vector_to_array(transform.A)
    return matrix.reshape(transform.d_out, transform.d_in)


def _require_same_scores(index: "faiss.Index", vectors: np.ndarray, path: Path) -> None:
    """Search for some of the vectors, and compare the index's scores with their own.

    Raises:
        DenseHNError: they differ, in a kind of index that scores in a way of its own.
    """
    rows = np.random.default_rng(0).choice(len(vectors), min(PROBES, len(vectors)))
    scores, found = index.search(vectors[rows], PROBES)
    ours = np.einsum("qd,qkd->qk", vectors[rows], vectors[found])
    apart = np.abs(ours - scores)[found >= 0].max(initial=0)
    least = TOLERANCE * np.abs(scores[found >= 0]).max(initial=0)
    if not (apart <= least < np.inf):
        raise DenseHNError(
            f"{path}: {type(index).__name__} scores {apart:.2g} away from the dot "
            f"products of what it holds, so training would rank otherwise; {INSTEAD}"
        )


def _manifest(
    folder: Path, shape: tuple[int, int], files: Sequence[str]
) -> tuple[str, str] | None:
    """The digests of encoder and corpus that ``manifest.json`` names, if there is one."""
    if not (folder / MANIFEST).is_file():
        return None
    said = manifest.read(folder)
    if (said["passages"], said["dimension"]) != shape:
        raise DenseHNError(
            f"{folder / MANIFEST}: says {said['passages']} passages of "
            f"{said['dimension']} dimensions, and the index has {shape[0]} of "
            f"{shape[1]}; it belongs to another index, export anew"
        )
    # Exports of older versions do not say.
    if said["files"] not in (None, files):
        raise DenseHNError(
            f"{folder / MANIFEST}: is of another index than the one beside it; export "
            "anew, or remove it if another program wrote the index"
        )
    return said["encoder"], said["corpus"]
