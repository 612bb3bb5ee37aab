"""A corpus, docid to text, in the formats that users of Pyserini have.

* JSON as Pyserini's JsonCollection reads it: a file, or a folder of them;
* MS MARCO's and DPR's TSV.

Each is read gzipped, too, where the name ends in ``.gz``. What was read is kept in the
cache (dense_hn.cache), from where texts are read as they are needed.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from dense_hn import DenseHNError, cache, columns, reading
from dense_hn.collections import json_documents, tsv_documents
from dense_hn.columns import Docids, Texts
from dense_hn.files import digest, require_file, whole_file
from dense_hn.ids import require_id

log = logging.getLogger("dense_hn")

# What Anserini's JsonCollection takes from a folder; it leaves other files alone.
IN_FOLDER = (".json", ".jsonl", ".gz")
# Files of a corpus in the cache.
COLUMNS, DIGEST = "corpus.arrow", "digest"
SCHEMA = pa.schema({"docid": pa.large_string(), "text": pa.large_string()})


class Corpus(Mapping[str, str]):
    """Docid to text, in the order of the corpus; few bytes of it are in memory."""

    def __init__(self, docids: Docids, texts: Texts, digest: str) -> None:
        self.docids = docids
        # In the order of the docids.
        self.texts = texts
        # corpus_digest() of it.
        self.digest = digest

    @classmethod
    def of(cls, corpus: Mapping[str, str]) -> "Corpus":
        """A corpus that is in memory."""
        if isinstance(corpus, cls):
            return corpus
        texts = Texts.of(corpus.values())
        return cls(Docids.of(corpus), texts, corpus_digest(corpus))

    def __getitem__(self, docid: str) -> str:
        return self.texts[self.docids.row(docid)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.docids)

    def __len__(self) -> int:
        return len(self.docids)

    def __contains__(self, docid: object) -> bool:
        return docid in self.docids

    def values(self) -> Texts:
        """The texts, in their order."""
        return self.texts

    def items(self) -> Iterable[tuple[str, str]]:
        """(docid, text), in their order."""
        return zip(self.docids, self.texts, strict=True)


def read_corpus(path: str | Path) -> Corpus:
    """Read a corpus, in the order of the files and lines.

    Args:
        path: a folder (its JSON files, those of its folders included, sorted by name), a
            ``.tsv`` file (see dense_hn.collections.tsv_documents), or a JSON file
            (dense_hn.collections.json_documents).

    Raises:
        DenseHNError: names file and line of what cannot be read: broken JSON, a missing
            column, an empty line; a document without id or text, an id with white
            space, an id seen before.
    """
    files = corpus_files(path)
    # Their names say how they are read.
    made_from = [["".join(file.suffixes), digest(file)] for file in files]
    kept = cache.folder("corpora", made_from, lambda made: _write(files, path, made))
    read = columns.read(kept / COLUMNS)
    return Corpus(
        Docids(read["docid"]), Texts(read["text"]), (kept / DIGEST).read_text()
    )


def _write(files: list[Path], path: str | Path, folder: Path) -> None:
    """Write what read_corpus keeps of these files of ``path``.

    Raises:
        DenseHNError: as there.
    """
    state = hashlib.sha256()

    def pieces() -> Iterator[tuple]:
        with tqdm(desc="Reading corpus", unit=" documents") as progress:
            for piece in columns.cut(_documents(files)):
                for where, docid, text in piece:
                    require_id(docid, "docid", where)
                    if not text.strip():
                        raise DenseHNError(
                            f"{where}: document {docid!r} has no text; remove it"
                        )
                    reading.require_unicode(text, f"{where}: document {docid!r}")
                    _add(state, docid, text)
                progress.update(len(piece))
                yield tuple(zip(*piece, strict=True))[1:]

    columns.write(folder / COLUMNS, SCHEMA, pieces())
    docids = Docids(columns.read(folder / COLUMNS)["docid"])
    if not len(docids):
        raise DenseHNError(f"{path}: no document in this file")
    again = docids.again()
    if again is not None:
        where = next(w for n, (w, _, _) in enumerate(_documents(files)) if n == again)
        raise DenseHNError(
            f"{where}: docid {docids[again]!r} occurs twice; ids must be unique"
        )
    (folder / DIGEST).write_text(state.hexdigest())


def _documents(files: list[Path]) -> Iterator[tuple[str, str, str]]:
    """(``file:line``, docid, text) of every document in these files."""
    for file in files:
        tsv = reading.kind(file) == ".tsv"
        yield from (tsv_documents if tsv else json_documents).documents(file)


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
    if isinstance(corpus, Corpus):
        return corpus.digest
    state = hashlib.sha256()
    for docid, text in corpus.items():
        _add(state, docid, text)
    return state.hexdigest()


def _add(state: "hashlib._Hash", docid: str, text: str) -> None:
    state.update(f"{json.dumps((docid, text))}\n".encode())
