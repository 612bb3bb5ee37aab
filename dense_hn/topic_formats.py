"""Topics in the formats that users of Pyserini have.

* ``.json``: ``{qid: {"title": text}}``;
* ``.jsonl``: ``qid``, ``id`` or ``_id``, and ``title`` or ``text``, an object a line;
  BEIR's queries.jsonl is one;
* TREC's ``<top> <num> Number: 301 <title> text``, with or without closing tags, of
  which number and title are taken, whatever the file is called;
* otherwise TSV, ``qid<TAB>text``.

Each is read gzipped, too, where the name ends in ``.gz``.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from dense_hn import DenseHNError, reading

# In the order in which Pyserini looks for them.
QID, TEXT = ("id", "qid", "_id"), ("title", "text")
_TOP = re.compile(r"<top\b[^>]*>(.*?)(?=</top>|<top\b|\Z)", re.DOTALL | re.IGNORECASE)
# A field ends with the next one's tag; others end it where they begin a line, and belong to
# the text where they do not, as in List<String>.
_FIELD = re.compile(
    r"<(num|title)>\s*(?:number:|topic:)?(.*?)"
    r"(?=</?(?:num|title|desc|narr)[a-z]*>|^[ \t]*</?[a-z]+>|\Z)",
    re.DOTALL | re.IGNORECASE | re.MULTILINE,
)


def kind(path: str | Path) -> Literal["json", "jsonl", "trec", "tsv"]:
    """The format of a topics file, by its name and how it starts."""
    ending = reading.kind(path)
    if ending in (".json", ".jsonl"):
        return ending[1:]
    with reading.open_text(path, "topics") as file:
        start = file.read(1000).lstrip().lower()
    return "trec" if re.match(r"<top\b", start) else "tsv"


def rows(path: str | Path) -> Iterator[tuple[str, str, str]]:
    """Yield (``file:line``, qid, text) of every topic; a text may be empty.

    Raises:
        DenseHNError: what is not of the file's format.
    """
    read = {"json": _json, "jsonl": _jsonl, "trec": _trec, "tsv": _tsv}
    return read[kind(path)](path)


def _tsv(path: str | Path) -> Iterator[tuple[str, str, str]]:
    for where, line in reading.lines(path, "topics"):
        qid, tab, text = line.partition("\t")
        if not tab:
            raise DenseHNError(f"{where}: expected `qid<TAB>text`, got {line[:80]!r}")
        if "\r" in line or "\ufeff" in line:
            raise DenseHNError(
                f"{where}: a carriage return or byte order mark inside, where Pyserini "
                "would read another text; remove it"
            )
        if "\t" in text:
            raise DenseHNError(
                f"{where}: a second tab, where Pyserini would cut the text; remove it"
            )
        yield where, qid, text


def _trec(path: str | Path) -> Iterator[tuple[str, str, str]]:
    with reading.open_text(path, "topics") as file:
        content = file.read()
    for top in _TOP.finditer(content):
        where = f"{path}:{content.count(chr(10), 0, top.start()) + 1}"
        found = [(name.lower(), text) for name, text in _FIELD.findall(top[1])]
        fields = dict(found)
        for name in ("num", "title"):
            if name not in fields:
                raise DenseHNError(f"{where}: a topic without <{name}>; add it")
        if len(fields) < len(found):
            name = next(n for n in fields if [one for one, _ in found].count(n) > 1)
            raise DenseHNError(f"{where}: a topic with two <{name}>; keep one")
        yield where, fields["num"].strip(), " ".join(fields["title"].split())


def _json(path: str | Path) -> Iterator[tuple[str, str, str]]:
    with reading.open_text(path, "topics") as file:
        try:
            # In pairs, since a dictionary would keep the last of equal ids.
            topics = json.load(file, object_pairs_hook=tuple)
        except (ValueError, RecursionError) as error:
            raise DenseHNError(f"{path}: broken JSON ({error}); mend it") from None
    for pair in topics if isinstance(topics, tuple) else [None]:
        fields = pair[1] if pair else None
        title = dict(fields).get("title") if isinstance(fields, tuple) else None
        if not isinstance(title, str):
            about = f" (query id {pair[0]!r})" if pair else ""
            raise DenseHNError(
                f'{path}: expected {{"QID": {{"title": "…"}}, …}}{about}'
            )
        yield path, pair[0], title


def _jsonl(path: str | Path) -> Iterator[tuple[str, str, str]]:
    for where, line in reading.lines(path, "topics"):
        topic = reading.parsed(line, where)
        qid, text = (
            next((topic[key] for key in keys if key in topic), None)
            for keys in (QID, TEXT)
        )
        if type(qid) is int:
            qid = str(qid)
        if not isinstance(qid, str) or not isinstance(text, str):
            raise DenseHNError(
                f"{where}: expected a string under one of {', '.join(QID)}, and under "
                f"one of {', '.join(TEXT)}"
            )
        yield where, qid, text
