"""Passages by docid, title and text apart, since answers are looked for in the text alone.

Out of every corpus that dense_hn.collections.corpus reads, and out of JSON with ``title``
and ``text`` in the place of ``contents``, which BEIR's corpus.jsonl is. ``contents`` are a
title up to their first line's end, as Pyserini's are, or a text where there is no other
line. DPR's TSV has its own columns; other TSV has no titles.
"""

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dense_hn import DenseHNError, reading
from dense_hn.collections import json_documents, tsv_documents
from dense_hn.collections.corpus import corpus_files

log = logging.getLogger("dense_hn")

# Keys of a JSON document's id.
DOCID = ("id", "_id")


@dataclass(frozen=True, slots=True)
class Passage:
    """A document."""

    # Empty where it has none.
    title: str
    text: str

    def contents(self) -> str:
        """As Pyserini's Wikipedia indexes hold it."""
        return f"{self.title}\n{self.text}"


def read_passages(path: str | Path, docids: Collection[str]) -> dict[str, Passage]:
    """Read the passages of some docids; how many have a title is logged.

    Args:
        path: a corpus, as the module says.
        docids: those that are wanted, to be looked up fast. One that is not there is left
            out, see trec.require_known.

    Raises:
        DenseHNError: names file and line of what cannot be read; a wanted docid that
            occurs twice.
    """
    found: dict[str, Passage] = {}
    with tqdm(desc="Reading passages", unit=" documents") as progress:
        for file in corpus_files(path):
            for where, docid, title, text in _documents(file):
                progress.update()
                if docid not in docids:
                    continue
                if docid in found:
                    raise DenseHNError(
                        f"{where}: docid {docid!r} occurs twice; ids must be unique"
                    )
                reading.require_unicode(title + text, f"{where}: document {docid!r}")
                found[docid] = Passage(title, text)
    titled = sum(bool(passage.title) for passage in found.values())
    log.info(
        "%s: answers are looked for in %d passages; %d have a title, which is not searched",
        *(path, len(found), titled),
    )
    return found


def _documents(file: Path) -> Iterator[tuple[str, str, str, str]]:
    """(``file:line``, docid, title, text) of every document."""
    if reading.kind(file) != ".tsv":
        for where, document in json_documents.objects(file):
            yield where, *_parts(document, where)
    elif tsv_documents.has_titles(file):
        yield from tsv_documents.titled(file)
    else:
        for where, docid, text in tsv_documents.documents(file):
            yield where, docid, "", text


def _parts(document: dict[str, Any], where: str) -> tuple[str, str, str]:
    """The docid, title and text of a JSON document."""
    docid = next((document[key] for key in DOCID if key in document), None)
    if type(docid) is int:
        docid = str(docid)
    if "contents" in document:
        contents = document["contents"]
        if isinstance(docid, str) and isinstance(contents, str):
            title, _, text = contents.partition("\n")
            return (docid, title, text) if text.strip() else (docid, "", contents)
    title, text = document.get("title") or "", document.get("text")
    if not all(isinstance(value, str) for value in (docid, title, text)):
        raise DenseHNError(
            f'{where}: expected {{"id": "…", "contents": "…"}} or {{"id": "…", "title": '
            '"…", "text": "…"}} with strings'
        )
    return docid, title, text
