"""Pyserini's faiss folder: ``index``, ``docid``, and our ``manifest.json``."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dense_hn import java
from dense_hn.encoder import DenseEncoder
from dense_hn.export import faiss_index, manifest
from dense_hn.export.faiss_index import INDEX
from dense_hn.export.self_check import require_whole, sample, self_check
from dense_hn.files import whole_folder
from dense_hn.ids import write_docids
from dense_hn.quantised import Codes
from dense_hn.vectors import DOCIDS, MANIFEST, Vectors

if TYPE_CHECKING:
    import faiss

# What such a folder holds.
HOLDS = INDEX, DOCIDS, MANIFEST

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
    require_searchable(vectors, encoders)
    settled = faiss_index.settle(form, parameters or {}, *vectors.matrix.shape)
    with whole_folder(folder, *HOLDS) as partial:
        write_index(vectors, partial, form, settled, threads)
        _check(vectors, folder, partial, encoders, topics)


def export_codes(
    vectors: Vectors,
    folder: str | Path,
    encoders: Mapping[str, DenseEncoder],
    codes: Codes,
    form: str,
    topics: Iterable[str] = (),
) -> None:
    """As :func:`export_index`, of codes whose centroids may have been trained.

    Args:
        vectors: the passages that were coded.
        folder: see there.
        encoders: see there.
        codes: theirs.
        form: of faiss_index.CODED.
        topics: see there.

    Raises:
        DenseHNError: as :func:`export_index`.
    """
    require_searchable(vectors, encoders)
    with whole_folder(folder, *HOLDS) as partial:
        made = {"form": form, "pq_m": codes.codes.shape[1]}
        _write(vectors, partial, codes.as_index(), made)
        _check(vectors, folder, partial, encoders, topics)


def require_searchable(vectors: Vectors, encoders: Mapping[str, DenseEncoder]) -> None:
    """Check that Pyserini can search these passages with these encoders.

    Raises:
        DenseHNError: no JDK, an encoder with weights missing or that did not make them.
    """
    java.java_home()
    for path, encoder in encoders.items():
        vectors.require_made_by(encoder, path)
        require_whole(encoder, path)


def _check(
    vectors: Vectors,
    folder: str | Path,
    partial: Path,
    encoders: Mapping[str, DenseEncoder],
    topics: Iterable[str],
) -> None:
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
    index = faiss_index.build(vectors.matrix, form, parameters, threads)
    _write(vectors, folder, index, {"form": form, **parameters})


def _write(
    vectors: Vectors, folder: Path, index: "faiss.Index", form: Mapping[str, Any]
) -> None:
    import faiss

    faiss.write_index(index, str(folder / INDEX))
    write_docids(folder / DOCIDS, vectors.docids)
    files = folder / INDEX, folder / DOCIDS
    manifest.write(folder / MANIFEST, vectors, form, files)
