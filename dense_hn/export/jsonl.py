"""Passage vectors as JSONL, one ``{"id": …, "docid": …, "vector": […]}`` a line.

``id`` is the key of `pyserini.index.faiss` (and of what `pyserini.encode` writes),
``docid`` that of Anserini's JsonDenseVectorCollection; each leaves the other alone, so
one file serves both.
"""

import json
from itertools import zip_longest
from pathlib import Path

import torch
from tqdm import tqdm

from dense_hn import DenseHNError
from dense_hn.encode import json_vector
from dense_hn.export import manifest
from dense_hn.files import whole_file, whole_folder
from dense_hn.vectors import Vectors

FILE = "vectors.jsonl"
# Passages whose vectors are in memory as Python's numbers.
CHUNK = 1024


def export_jsonl(vectors: Vectors, folder: str | Path) -> None:
    """Write a folder with the vectors as JSONL, and what they are beside it.

    Pyserini reads every file of the folder as vectors, so that it holds nothing else;
    the manifest is ``FOLDER.json``.

    Raises:
        DenseHNError: as :func:`write_jsonl` and :func:`require_same`; a folder that
            holds other things.
    """
    folder = Path(folder)
    with whole_folder(folder, FILE) as partial:
        write_jsonl(vectors, partial / FILE)
        require_same(vectors, partial / FILE)
    with whole_file(folder.with_name(f"{folder.name}.json")) as partial:
        manifest.write(partial, vectors, {"form": "jsonl"})


def require_same(vectors: Vectors, path: Path) -> None:
    """Check that a file of JSONL vectors gives the same docids and float32 numbers.

    Raises:
        DenseHNError: names the first line that does not, that is missing or too many.
    """
    with open(path, encoding="utf-8") as file:
        lines = tqdm(file, desc="Checking JSONL", unit=" passages")
        for row, (docid, line) in enumerate(zip_longest(vectors.docids, lines)):
            try:
                read = json.loads(line or "null")
                same = read["id"] == read["docid"] == docid and torch.tensor(
                    read["vector"]
                ).equal(vectors.matrix[row])
            except (ValueError, KeyError, TypeError):
                same = False
            if not same:
                raise DenseHNError(
                    f"{path}:{row + 1}: not what was written; look at the disk, and "
                    "export anew"
                )


def write_jsonl(vectors: Vectors, path: str | Path) -> None:
    """Write all vectors, in corpus order, so that the same float32 are read back.

    Raises:
        DenseHNError: a number that is not finite, which JSON does not have.
    """
    progress = tqdm(total=len(vectors.docids), desc="Writing JSONL", unit=" passages")
    with open(path, "w", encoding="utf-8") as file, progress:
        for start in range(0, len(vectors.matrix), CHUNK):
            chunk = vectors.matrix[start : start + CHUNK]
            docids = vectors.docids[start : start + CHUNK]
            finite = torch.isfinite(chunk).all(dim=1)
            if not finite.all():
                docid = docids[int((~finite).nonzero()[0])]
                raise DenseHNError(
                    f"{vectors.path}: the vector of {docid!r} has a number that is not "
                    "finite; look at its encoder, and encode anew"
                )
            for docid, row in zip(docids, chunk.tolist(), strict=True):
                key = json.dumps(docid)
                file.write(
                    f'{{"id": {key}, "docid": {key}, "vector": {json_vector(row)}}}\n'
                )
            progress.update(len(docids))
