"""Passage vectors as a dense Lucene index, flat or HNSW.

Anserini's own indexers make it, which Pyserini has no module for. Lucene scores a hit
(1 + dot product) / 2, and products under -1 as 0: it wants vectors of length one.
"""

import json
from pathlib import Path
from typing import Literal

import torch

from dense_hn import DenseHNError, anserini, pyserini
from dense_hn.encode import Vectors
from dense_hn.export_forms.jsonl import FILE, write_jsonl
from dense_hn.export_forms.manifest import manifest
from dense_hn.files import whole_folder

Form = Literal["flat", "hnsw"]
INDEXERS = {"flat": "IndexFlatDenseVectors", "hnsw": "IndexHnswDenseVectors"}
MANIFEST = "manifest.json"
# How far from one a vector's length may be, so that a score is off by as much at most.
TOLERANCE = 1e-4
CHUNK = 65_536
# Candidates of an HNSW search when fewer hits are asked for, Anserini's default.
EF_SEARCH = 100


def export_lucene(
    vectors: Vectors, folder: str | Path, form: Form, M: int = 16, efC: int = 100
) -> None:
    """Index vectors of length one with Lucene.

    The same vectors give the same hits: one thread indexes them, into one segment as
    long as they take less than 2 GB. As JSONL they need disk for the time being, about
    16 bytes a number.

    Args:
        vectors: the corpus.
        folder: index folder to write.
        form: "flat" (exact search) or "hnsw" (approximate, by a graph).
        M: neighbours of a passage in the graph; for "hnsw".
        efC: candidates looked at for them when the graph is built; for "hnsw".

    Raises:
        DenseHNError: a vector whose length is not one to 1e-4; no JDK; the indexer
            failed, or indexed another number of passages.
    """
    require_unit(vectors)
    pyserini.java_home()
    with whole_folder(folder, "segments_*") as partial:
        source = partial / "jsonl"
        source.mkdir()
        write_jsonl(vectors, source / FILE)
        command = [f"io.anserini.index.{INDEXERS[form]}", "-threads", "1"]
        command += ["-collection", "JsonDenseVectorCollection", "-input", str(source)]
        command += ["-generator", "DenseVectorDocumentGenerator"]
        command += ["-index", str(partial)]
        command += ["-M", str(M), "-efC", str(efC)] if form == "hnsw" else []
        label = "Indexing vectors"
        anserini.index(command, partial, folder, len(vectors.docids), label)
        (source / FILE).unlink()
        source.rmdir()
        text = json.dumps(manifest(vectors) | {"form": f"lucene-{form}"}, indent=2)
        (partial / MANIFEST).write_text(text + "\n")


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
    pyserini.require_name(topics, "topics", "beir", "cacm")
    command = ["--dense", f"--{form}", "--index", str(index), "--topics", str(topics)]
    command += ["--output", str(output), "--hits", str(hits)]
    # An HNSW search has no more hits than candidates.
    return command + (
        ["--ef-search", str(max(hits, EF_SEARCH))] if form == "hnsw" else []
    )
