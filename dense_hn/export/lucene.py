"""Passage vectors as a dense Lucene index, flat or HNSW.

Anserini's own indexers make it, which Pyserini has no module for. Lucene scores a hit
(1 + dot product) / 2, and products under -1 as 0: it wants vectors of length one.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dense_hn import DenseHNError, anserini, java, trec
from dense_hn.encode import JSONL, encode_texts, encode_topics
from dense_hn.encoder import DenseEncoder
from dense_hn.export import manifest
from dense_hn.export.jsonl import FILE, write_jsonl
from dense_hn.export.parameters import complete
from dense_hn.export.self_check import (
    HITS,
    asked,
    in_pyserini,
    largest_difference,
    require_exact,
    said,
    sample,
    share_of_best,
)
from dense_hn.files import whole_folder
from dense_hn.search_command import require_harmless
from dense_hn.vectors import MANIFEST, Vectors

Form = Literal["lucene-flat", "lucene-hnsw"]
INDEXERS = {
    "lucene-flat": "IndexFlatDenseVectors",
    "lucene-hnsw": "IndexHnswDenseVectors",
}
# The parameters of each form, with Anserini's defaults.
FORMS = {"lucene-flat": {}, "lucene-hnsw": {"M": 16, "efC": 100}}
# How far from one a vector's length may be, so that a score is off by as much at most.
TOLERANCE = 1e-4
CHUNK = 65_536
# Candidates of an HNSW search when fewer hits are asked for, Anserini's default.
EF_SEARCH = 100


def export_lucene(
    vectors: Vectors,
    folder: str | Path,
    form: Form,
    encoder: DenseEncoder,
    path: str,
    parameters: Mapping[str, int] | None = None,
    topics: Iterable[str] = (),
) -> str:
    """Index vectors of length one with Lucene; Pyserini then has to find what we find.

    The same vectors give the same hits: one thread indexes them, into one segment as
    long as they take less than 2 GB. As JSONL they need disk for the time being, about
    16 bytes a number.

    Args:
        vectors: the corpus.
        folder: index folder to write.
        form: one of ``FORMS``, exact search or an approximate one by a graph.
        encoder: query encoder that will search it.
        path: its folder, for messages.
        parameters: ``M``, neighbours of a passage in the graph, and ``efC``, candidates
            looked at for them, where the form has one.
        topics: texts of which some are searched in the self-check.

    Returns:
        What the self-check found, in one line.

    Raises:
        DenseHNError: impossible parameters; vectors of another encoder, or not of
            length one to 1e-4; no JDK; the indexer failed, or indexed another number of
            passages; a self-check that fails.
    """
    settled = complete(form, parameters or {}, FORMS[form])
    vectors.require_made_by(encoder, path)
    require_unit(vectors)
    java.java_home()
    with whole_folder(folder, *anserini.HOLDS, also=anserini.ALSO) as partial:
        write_lucene(vectors, partial, form, settled, folder)
        return _self_check(partial, vectors, form, encoder, path, sample(topics))


def write_lucene(
    vectors: Vectors,
    folder: Path,
    form: Form,
    parameters: Mapping[str, int],
    name: str | Path,
) -> None:
    """Write the index into a folder that is there and empty, unchecked.

    Args:
        vectors: of length one.
        folder: to write into.
        form: one of ``FORMS``.
        parameters: all of the form's.
        name: of the folder in messages.

    Raises:
        DenseHNError: the indexer failed, or indexed another number of passages.
    """
    source = folder / "jsonl"
    source.mkdir()
    write_jsonl(vectors, source / FILE)
    command = [f"io.anserini.index.{INDEXERS[form]}", "-threads", "1"]
    command += ["-collection", "JsonDenseVectorCollection", "-input", str(source)]
    command += ["-generator", "DenseVectorDocumentGenerator", "-index", str(folder)]
    for key, value in parameters.items():
        command += [f"-{key}", str(value)]
    anserini.index(command, folder, name, len(vectors.docids), "Indexing vectors")
    (source / FILE).unlink()
    source.rmdir()
    manifest.write(folder / MANIFEST, vectors, {"form": form, **parameters})


def _self_check(
    folder: Path,
    vectors: Vectors,
    form: Form,
    encoder: DenseEncoder,
    path: str,
    texts: Sequence[str],
) -> str:
    """Search the folder with Pyserini; scores are (1 + dot product) / 2.

    Raises:
        DenseHNError: too few hits, other scores, or, where search is exact, not the
            best.
    """
    topics = asked(texts)
    hits = min(HITS, len(vectors.docids))
    with tempfile.TemporaryDirectory() as temporary:
        file, output = Path(temporary) / "topics.tsv", Path(temporary) / "run.txt"
        trec.write_topics(file, topics)
        encode_topics(encoder, file, Path(temporary) / "encoded")
        encoded = Path(temporary) / "encoded" / JSONL
        command = search_command(form, folder, encoded, output, hits)
        theirs = in_pyserini(["search.lucene", *command], output, str(folder))
    queries = encode_texts(encoder, list(topics.values()), "query")
    for qid, text in topics.items():
        found = [docid for docid in theirs.get(qid, {}) if docid in vectors.docids]
        if len(found) != hits:
            raise DenseHNError(
                f"{folder}: Pyserini finds {len(found)} of our passages and not {hits} "
                f"for the query {text[:60]!r}; export anew"
            )
    ranked = [vectors.docids.rows(trec.ranked(theirs[qid])) for qid in topics]
    rows = torch.from_numpy(np.stack(ranked))
    dots = torch.einsum("qd,qkd->qk", queries, vectors.matrix[rows])
    ours = {
        qid: {vectors.docids[n]: (1 + s) / 2 for n, s in zip(*found, strict=True)}
        for qid, *found in zip(topics, rows.tolist(), dots.tolist(), strict=True)
    }
    largest = largest_difference(ours, theirs, topics, str(folder), "export anew")
    share = share_of_best(queries, vectors.matrix, rows)
    if not FORMS[form]:
        require_exact(share, folder, vectors)
    return said(vectors, topics, hits, largest, share)


def require_unit(vectors: Vectors) -> None:
    """Check that all vectors have length one.

    Raises:
        DenseHNError: names the first docid whose vector has not.
    """
    for start in range(0, len(vectors.matrix), CHUNK):
        chunk = vectors.matrix[start : start + CHUNK]
        lengths = torch.linalg.vector_norm(chunk, dim=1, dtype=torch.float64)
        # So written, a length that is no number is wrong, too.
        wrong = ~((lengths - 1).abs() <= TOLERANCE)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise DenseHNError(
                f"{vectors.path}: the vector of {vectors.docids[start + row]!r} has "
                f"length {lengths[row]:.6g}, and Lucene scores vectors of length one "
                "only; encode with an encoder that has l2_norm, or export to faiss"
            )


def search_command(
    form: Form,
    index: str | Path,
    topics: str | Path,
    output: str | Path,
    hits: int = 1000,
) -> list[str]:
    """Arguments of ``pyserini.search.lucene`` that search a dense Lucene index.

    Args:
        form: as it was exported.
        index: exported index folder.
        topics: ``topics.vect.jsonl`` from :func:`dense_hn.encode.encode_topics`.
        output: run file that Pyserini will write.
        hits: documents per topic.

    Raises:
        DenseHNError: a topics path that makes Pyserini read them in another way.
    """
    require_harmless(topics, "vector topics")
    command = ["--dense", f"--{form.removeprefix('lucene-')}", "--index", str(index)]
    command += ["--topics", str(topics), "--output", str(output), "--hits", str(hits)]
    # A search in a graph has no more hits than candidates.
    return command + (["--ef-search", str(max(hits, EF_SEARCH))] if FORMS[form] else [])
