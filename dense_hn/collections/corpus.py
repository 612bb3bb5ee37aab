"""A corpus, docid to text, in the formats that users of Pyserini have.

* JSON as Pyserini's JsonCollection reads it: a file, or a folder of them;
* MS MARCO's and DPR's TSV.

Each is read gzipped, too, where the name ends in ``.gz``.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from dense_hn import DenseHNError, reading
from dense_hn.collections import json_documents, tsv_documents
from dense_hn.files import require_file, whole_file
from dense_hn.ids import require_id

log = logging.getLogger("dense_hn")

Corpus = dict[str, str]

# What Anserini's JsonCollection takes from a folder; it leaves other files alone.
IN_FOLDER = (".json", ".jsonl", ".gz")


def read_corpus(path: str | Path) -> Corpus:
    """Read a corpus into ``{docid: text}``, in the order of the files and lines.

    Args:
        path: a folder (its JSON files, those of its folders included, sorted by name), a
            ``.tsv`` file (see dense_hn.collections.tsv_documents), or a JSON file
            (dense_hn.collections.json_documents).

    Raises:
        DenseHNError: names file and line of what cannot be read: broken JSON, a missing
            column, an empty line; a document without id or text, an id with white
            space, an id seen before.
    """
    corpus: Corpus = {}
    with tqdm(desc="Reading corpus", unit=" documents") as progress:
        for file in corpus_files(path):
            tsv = reading.kind(file) == ".tsv"
            documents = (tsv_documents if tsv else json_documents).documents
            for where, docid, text in documents(file):
                require_id(docid, "docid", where)
                if docid in corpus:
                    raise DenseHNError(
                        f"{where}: docid {docid!r} occurs twice; ids must be unique"
                    )
                if not text.strip():
                    raise DenseHNError(
                        f"{where}: document {docid!r} has no text; remove it"
                    )
                corpus[docid] = text
                progress.update()
    if not corpus:
        raise DenseHNError(f"{path}: no document in this file")
    return corpus


def corpus_files(path: str | Path) -> list[Path]:
    """The files that :func:`read_corpus` reads, in its order.

    Raises:
        DenseHNError: there is nothing, or a folder without any.
    """
    path = Path(path)
    if not path.is_dir():
        return [require_file(path, "corpus")]
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    taken = [file for file in inside if file.suffix in IN_FOLDER]
    if not taken:
        raise DenseHNError(
            f"{path}: no {', '.join(IN_FOLDER)} file in this folder; a corpus in another "
            "format is named by its file"
        )
    if len(taken) < len(inside):
        log.warning(
            "%s: %d files there are not read; they do not end in %s",
            path,
            len(inside) - len(taken),
            ", ".join(IN_FOLDER),
        )
    return taken


def write_corpus(path: str | Path, corpus: Mapping[str, str]) -> None:
    """Write ``{docid: contents}`` as Pyserini's JSONL."""
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        for docid, contents in corpus.items():
            line = json.dumps({"id": docid, "contents": contents}, ensure_ascii=False)
            file.write(f"{line}\n")


def corpus_digest(corpus: Mapping[str, str]) -> str:
    """SHA-256 of all docids and contents in their order, however the file is laid out."""
    state = hashlib.sha256()
    for document in corpus.items():
        state.update(f"{json.dumps(document)}\n".encode())
    return state.hexdigest()
