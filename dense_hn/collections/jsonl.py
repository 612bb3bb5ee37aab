"""A corpus in Pyserini's JSONL: one ``{"id": …, "contents": …}`` a line."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from dense_hn import DenseHNError
from dense_hn.files import require_file, whole_file

Corpus = dict[str, str]


def read_corpus(path: str | Path) -> Corpus:
    """Read a JSONL file into ``{docid: contents}``, in file order.

    Raises:
        DenseHNError: names file and line of an empty line, broken JSON, a missing or
            empty ``id`` or ``contents``, an id with white space, an id seen before.
    """
    require_file(path, "corpus")
    corpus: Corpus = {}
    with open(path, "rb") as file:
        for number, line in enumerate(
            tqdm(file, desc="Reading corpus", unit=" documents"), 1
        ):
            docid, contents = _document(line, f"{path}:{number}")
            if docid in corpus:
                raise DenseHNError(
                    f"{path}:{number}: docid {docid!r} occurs twice; ids must be unique"
                )
            corpus[docid] = contents
    if not corpus:
        raise DenseHNError(f"{path}: no document in this file")
    return corpus


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


def _document(line: bytes, where: str) -> tuple[str, str]:
    if not line.strip():
        raise DenseHNError(f"{where}: empty line; remove it")
    try:
        document = json.loads(line)
    except ValueError as error:
        raise DenseHNError(f"{where}: broken JSON ({error}); mend the line") from None
    if not isinstance(document, dict):
        raise DenseHNError(f"{where}: a {type(document).__name__}, not a JSON object")
    for key in ("id", "contents"):
        value = document.get(key)
        if not isinstance(value, str) or not value.strip():
            raise DenseHNError(
                f"{where}: {key!r} is missing, empty or no string; every document "
                'needs {"id": "…", "contents": "…"}'
            )
    if document["id"].split() != [document["id"]]:
        raise DenseHNError(
            f"{where}: docid {document['id']!r} has white space, which a run cannot "
            "hold; rename it"
        )
    return document["id"], document["contents"]
