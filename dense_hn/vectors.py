"""Vectors: the passage vectors of a corpus, in a folder.

It holds ``vectors.npy`` ([N, D] float32), ``docid`` (one a line, in the same order) and
``manifest.json`` (which encoder and corpus they come from).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dense_hn import DenseHNError
from dense_hn.columns import Docids
from dense_hn.encoder import DenseEncoder
from dense_hn.files import require_file, require_folder
from dense_hn.ids import read_docids
from dense_hn.reading import read_object

MATRIX, DOCIDS, MANIFEST = "vectors.npy", "docid", "manifest.json"
# How Vectors.encoder starts where nothing says which encoder made them.
UNKNOWN = "index:"


@dataclass(frozen=True, slots=True)
class Vectors:
    """The passage vectors of a corpus, in corpus order."""

    docids: Docids
    # [N, D] float32, on the CPU; read from the folder as they are needed.
    matrix: Tensor
    # DenseEncoder.digest() of the encoder that made them, or "index:…" where it is not
    # known (dense_hn.index).
    encoder: str
    # corpus_digest() of the corpus; empty where it is not known.
    corpus: str
    # Where they were read from, for messages.
    path: Path
    # What the encoder's layers computed in: fp32, or one of encode.HALVES; empty where it is not
    # known.
    precision: str = ""

    @classmethod
    def load(cls, folder: str | Path) -> "Vectors":
        """Read a vectors folder.

        Raises:
            DenseHNError: something is missing, or vectors and docids differ in number.
        """
        folder = require_folder(folder, "vectors folder")
        for name in (MATRIX, DOCIDS, MANIFEST):
            require_file(folder / name, "part of a vectors folder")
        matrix = _matrix(folder / MATRIX)
        docids = Docids.of(read_docids(folder / DOCIDS, "part of a vectors folder"))
        manifest = read_object(folder / MANIFEST, "part of a vectors folder")
        encoder, corpus = (manifest.get(name) for name in ("encoder", "corpus"))
        if not isinstance(encoder, str) or not isinstance(corpus, str):
            raise DenseHNError(
                f"{folder / MANIFEST}: does not say which encoder made these vectors, "
                "and of which corpus; encode anew"
            )
        told = manifest.get("passages"), manifest.get("dimension")
        if len(docids) != len(matrix) or told != matrix.shape:
            raise DenseHNError(
                f"{folder}: {len(matrix)} vectors of {matrix.shape[1]} numbers, "
                f"{len(docids)} docids, and {MANIFEST} says {told[0]} of {told[1]}; "
                "encode anew"
            )
        precision = str(manifest.get("precision", ""))
        return cls(docids, torch.from_numpy(matrix), encoder, corpus, folder, precision)

    def require_made_by(self, encoder: DenseEncoder, name: str) -> None:
        """Check that nothing says that this encoder's queries belong to other passages.

        Raises:
            DenseHNError: the passages were encoded by another encoder than ``name``
                or than the one it was trained to search; vectors of another length;
                an encoder that was trained for another index.
        """
        if encoder.searches(self.encoder):
            return
        if not self.encoder.startswith(UNKNOWN):
            raise DenseHNError(
                f"{self.path}: these vectors were made by another encoder than {name} "
                "(or with other passage settings), and it was not trained to search them; "
                "encode the corpus with it first, or name what it was trained for"
            )
        if self.matrix.shape[1] != encoder.dimension:
            raise DenseHNError(
                f"{self.path}: vectors of {self.matrix.shape[1]} dimensions, and "
                f"{name} makes {encoder.dimension}; name the encoder that made the index"
            )
        if encoder.settings.passage_encoder.startswith(UNKNOWN):
            raise DenseHNError(
                f"{self.path}: {name} was trained for another index than this one; name "
                "the index it was trained for, or start from the encoder that made this"
            )


def _matrix(path: Path) -> np.ndarray:
    """[N, D] float32, read from its file as it is needed; no pickle is opened."""
    try:
        matrix = np.load(path, mmap_mode="c", allow_pickle=False)
    # numpy raises all kinds of errors, as a header breaks.
    except Exception as error:
        raise DenseHNError(
            f"{path}: no vectors can be read from it ({error}); encode anew"
        ) from error
    if (
        not isinstance(matrix, np.ndarray)
        or matrix.ndim != 2
        or matrix.dtype != np.float32
    ):
        raise DenseHNError(
            f"{path}: no table of 32-bit numbers, as vectors are; encode anew"
        )
    return matrix
