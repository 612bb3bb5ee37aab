"""Pyserini's faiss folder: ``index``, ``docid``, and our ``manifest.json``."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from dense_hn import pyserini
from dense_hn.encode import DOCIDS, MANIFEST, Vectors
from dense_hn.encoder import DenseEncoder
from dense_hn.export import faiss_index, manifest
from dense_hn.export.faiss_index import INDEX
from dense_hn.export.self_check import require_whole, sample, self_check
from dense_hn.files import whole_folder
from dense_hn.ids import write_docids

log = logging.getLogger("dense_hn")


def export_index(
    vectors: Vectors,
    folder: str | Path,
    encoders: Mapping[str, DenseEncoder],
    form: str = "flat",
    parameters: Mapping[str, int] | None = None,
    threads: int = 1,
    topics: Iterable[str] = (),
) -> None:
    """Write a faiss folder, which appears when Pyserini finds in it what we find.

    Args:
        vectors: the passages.
        folder: to write; one that an earlier export wrote is replaced.
        encoders: query encoders that will search it, by path.
        form: one of faiss_index.FORMS.
        parameters: of the form; see faiss_index.settle.
        threads: see faiss_index.build.
        topics: texts, of which eight are searched in the self-check, besides its own.

    Raises:
        DenseHNError: an encoder with weights missing or that did not make the
            passages, no JDK, impossible parameters; a self-check that fails.
    """
    pyserini.java_home()
    for path, encoder in encoders.items():
        vectors.require_made_by(encoder, path)
        require_whole(encoder, path)
    passages, dimension = vectors.matrix.shape
    settled = faiss_index.settle(form, parameters or {}, passages, dimension)
    with whole_folder(folder, INDEX, DOCIDS, MANIFEST) as partial:
        write_index(vectors, partial, form, settled, threads)
        for path, encoder in encoders.items():
            found = self_check(partial, vectors, encoder, path, sample(topics))
            log.info("%s, %s: %s", folder, path, found)


def write_index(
    vectors: Vectors,
    folder: Path,
    form: str,
    parameters: Mapping[str, int],
    threads: int = 1,
) -> None:
    """Write the three files into a folder, unchecked.

    Args:
        vectors: the passages.
        folder: there, empty.
        form: one of faiss_index.FORMS.
        parameters: as faiss_index.settle returns them.
        threads: see faiss_index.build.
    """
    import faiss

    index = faiss_index.build(vectors.matrix, form, parameters, threads)
    faiss.write_index(index, str(folder / INDEX))
    write_docids(folder / DOCIDS, vectors.docids)
    manifest.write(folder / MANIFEST, vectors, {"form": form, **parameters})
