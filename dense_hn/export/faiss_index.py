"""faiss indexes of passage vectors, inner product, in the forms that Pyserini opens.

None is wrapped in IDMap, which cannot reconstruct vectors, as Pyserini's relevance
feedback (``--prf-method``) needs.
"""

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from dense_hn import DenseHNError
from dense_hn.export.parameters import complete
from dense_hn.search import CHUNK

if TYPE_CHECKING:
    import faiss

log = logging.getLogger("dense_hn")

# The name that Pyserini opens in an index folder.
INDEX = "index"
# As faiss.index_factory spells them. np: without polysemous training, which takes a
# minute and serves searches by Hamming distance, of which Pyserini has none.
FORMS = {
    "flat": "Flat",
    "fp16": "SQfp16",
    "sq8": "SQ8",
    "hnsw": "HNSW{M}",
    "hnsw-fp16": "HNSW{M}_SQfp16",
    "pq": "PQ{pq_m}np",
    "opq-pq": "OPQ{pq_m},PQ{pq_m}np",
    "ivf": "IVF{nlist},Flat",
    "ivf-pq": "IVF{nlist},PQ{pq_m}np",
    "opq-ivf-pq": "OPQ{pq_m},IVF{nlist},PQ{pq_m}np",
}
# Those that hold nothing but codes (dense_hn.quantised).
CODED = ("pq", "opq-pq")
# The parameters of a part of a form's name, and their defaults.
PARAMETERS = {
    "hnsw": {
        "M": "links of a passage in the graph; default 32, faiss' own (it advises 4-64)",
        "efC": "candidates for a passage's links; default 256, pyserini.index.faiss' own",
        "ef_search": "candidates for a query's hits, or the hits if more; default 128",
    },
    "pq": {"pq_m": "bytes of a passage; default: one for 4 dimensions, faiss' advice"},
    "ivf": {
        "nlist": "cells; default 4 times the root of the passages, faiss' advice, but "
        "39 passages each",
        "nprobe": "cells searched for a query; default a tenth, at least 16 (faiss' own "
        "default of 1 loses hits)",
    },
}
# Those that are the index's state rather than its shape, by their names in faiss. They
# are saved in the file, and Pyserini searches with them.
STATE = {"efC": "efConstruction", "ef_search": "efSearch", "nprobe": "nprobe"}

# 8-bit codes; "PQ16np" is short for "PQ16x8np".
CODES = 256
# Least vectors per centroid that k-means can do with; faiss warns below it.
ADVISED = 39
# Vectors to learn codes from: faiss uses 256 per centroid at most.
TRAINED_ON = 256 * CODES
# Vectors per cell to learn the cells from; faiss advises 30 to 256.
PER_CELL = 64
SEED = 42


def require_faiss() -> None:
    """Check that faiss is there.

    Raises:
        DenseHNError: it is not.
    """
    if importlib.util.find_spec("faiss") is None:
        raise DenseHNError("faiss is not installed; run `pip install faiss-cpu`")


def settle(
    form: str, given: Mapping[str, int], passages: int, dimension: int
) -> dict[str, int]:
    """All parameters of a form: those given, and the defaults of ``PARAMETERS``.

    Args:
        form: one of ``FORMS``.
        given: some of its parameters.
        passages: how many vectors there are (N).
        dimension: their length (D).

    Raises:
        DenseHNError: a parameter that the form does not have or that cannot be, too
            few passages to train on; faiss is not there.
    """
    require_faiss()
    parts = form.split("-")
    known = [name for part in parts for name in PARAMETERS.get(part, {})]
    nlist = given.get(
        "nlist", max(1, min(round(4 * passages**0.5), passages // ADVISED))
    )
    defaults = {
        "M": 32,
        "efC": 256,
        "ef_search": 128,
        "pq_m": max(1, dimension // 4),
        "nlist": nlist,
        "nprobe": min(nlist, max(16, nlist // 10)),
    }
    settled = complete(form, given, {name: defaults[name] for name in known})
    if "pq" in parts and dimension % settled["pq_m"]:
        raise DenseHNError(
            f"pq_m is {settled['pq_m']}, which does not divide the {dimension} "
            "dimensions; give one that does"
        )
    if "pq" in parts and passages < CODES:
        raise DenseHNError(
            f"form {form} learns {CODES} codes for every byte, from as many passages at "
            f"least, and there are {passages}; use fp16"
        )
    if "opq" in parts and passages < dimension:
        raise DenseHNError(
            f"form {form} learns a rotation of {dimension} dimensions, from as many "
            f"passages at least, and there are {passages}; use {form[4:]}"
        )
    if "ivf" in parts and nlist > passages:
        raise DenseHNError(f"nlist is {nlist}, and there are {passages} passages")
    if "ivf" in parts and settled["nprobe"] > nlist:
        raise DenseHNError(f"nprobe is {settled['nprobe']} of {nlist} cells (nlist)")
    centroids = max(nlist if "ivf" in parts else 0, CODES if "pq" in parts else 0)
    if passages < ADVISED * centroids:
        log.warning(
            "form %s learns %d centroids from %d passages, where faiss advises %d",
            form,
            centroids,
            passages,
            ADVISED * centroids,
        )
    return settled


def build(
    matrix: Tensor, form: str, parameters: Mapping[str, int], threads: int = 1
) -> "faiss.Index":
    """Build an index; what is in memory is the index and the vectors it is trained on.

    Args:
        matrix: [N, D] float32, on the CPU; may be mapped from a file.
        form: one of ``FORMS``.
        parameters: as :func:`settle` returns them.
        threads: of faiss. With one, the same vectors give the same index, byte for
            byte; with more, an HNSW graph depends on which thread is faster.
    """
    import faiss

    vectors = matrix.numpy()
    factory = FORMS[form].format(**parameters)
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    for name in parameters.keys() & STATE:
        space = faiss.ParameterSpace()
        space.set_index_parameter(index, STATE[name], parameters[name])
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        if not index.is_trained:
            with _few_words(index):
                index.train(_sample(vectors, parameters.get("nlist", 0)))
        for start in range(0, len(vectors), CHUNK):
            index.add(vectors[start : start + CHUNK])
    finally:
        faiss.omp_set_num_threads(before)
    return index


def _sample(vectors: np.ndarray, nlist: int) -> np.ndarray:
    """Rows to train on: all, or as many as are needed, drawn with a fixed seed."""
    wanted = max(TRAINED_ON, PER_CELL * nlist)
    if len(vectors) <= wanted:
        return vectors
    rows = np.random.default_rng(SEED).choice(len(vectors), wanted, replace=False)
    return vectors[np.sort(rows)]


@contextmanager
def _few_words(index: "faiss.Index") -> Iterator[None]:
    """Keep faiss from saying what settle warned of, once for each byte and iteration."""
    import faiss

    index = faiss.downcast_index(index)
    rotation = None
    if isinstance(index, faiss.IndexPreTransform):
        rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        # What OPQMatrix makes for itself when it is given none.
        rotation.pq = codes = faiss.ProductQuantizer(index.d, rotation.M, 8)
        codes.cp.min_points_per_centroid = 1
        index = faiss.downcast_index(index.index)
    for owner in (index, getattr(index, "pq", None)):
        if hasattr(owner, "cp"):
            owner.cp.min_points_per_centroid = 1
    yield
    if rotation is not None:
        rotation.pq = None
