"""DPR's question answering files.

``{corpus: psgs_w100.tsv, SPLIT: FILE, …}``, each FILE one of

* ``.json``: a list of ``question``, ``positive_ctxs``, ``hard_negative_ctxs``, …, as in
  biencoder-nq-train.json. Its positive passages are relevant, all alike; its hard
  negatives are the run `hard`, in their order;
* ``.csv`` or ``.tsv``: ``question<TAB>['answer', …]``, as in nq-test.qa.csv: topics that
  are not judged.

Topics are numbered by their place in the file, from 0: train-0, train-1, …. Each file is
read gzipped, too, where the name ends in ``.gz``.

Source of the formats: the code of arXiv 2004.04906, dpr/data.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dense_hn import DenseHNError, reading
from dense_hn.collections import by_split
from dense_hn.collections.collection import Collection
from dense_hn.collections.corpus import corpus_files, read_corpus
from dense_hn.files import digest, require_file

FORM = "{corpus: PATH, SPLIT: FILE, …}"
JSON, QUESTIONS = ".json", (".csv", ".tsv")
# The run of hard negatives.
HARD = "hard"
# Keys of a passage's id; that of Natural Questions, and of the other sets.
PASSAGE = ("passage_id", "psg_id")


def read(value: Any) -> Collection:
    """Read the files; passages that the corpus lacks are counted and left out.

    Args:
        value: as the module says.

    Raises:
        DenseHNError: a value of another form, a file that is missing or cannot be read.
    """
    corpus_path, given = _parse(value)
    for split, path in given.items():
        require_file(path, split)
    read = Collection(corpus=read_corpus(corpus_path), topics={}, qrels={})
    for split, path in given.items():
        if reading.kind(path) == JSON:
            _judged(read, split, path)
        else:
            read.topics[split] = {
                topic_id(split, n): text
                for n, (_, text, _) in enumerate(questions(path, split))
            }
        if not read.topics[split]:
            raise DenseHNError(f"{path}: no question in this file")
    return read


def splits(value: Any) -> dict[str, bool]:
    """Split to whether it is judged."""
    given = _parse(value)[1]
    return {split: reading.kind(path) == JSON for split, path in given.items()}


def digests(value: Any) -> list[str]:
    """Digests of the files."""
    corpus_path, given = _parse(value)
    keys = [digest(path) for path in corpus_files(corpus_path)]
    for split, path in given.items():
        keys += [split, digest(require_file(path, split))]
    return keys


def topic_id(split: str, number: int) -> str:
    """The id of a split's topic, by its place in the file, from 0."""
    return f"{split}-{number}"


def entries(path: str | Path, what: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (``file:line``, question, entry) of a ``.json`` file; ``what`` as in reading.

    Raises:
        DenseHNError: as reading.objects; an entry without a question.
    """
    for where, entry in reading.objects(path, what):
        question = entry.get("question")
        if not isinstance(question, str):
            raise DenseHNError(f"{where}: 'question' is missing or no string")
        reading.require_unicode(question, where)
        yield where, question, entry


def questions(path: str | Path, what: str) -> Iterator[tuple[str, str, str]]:
    """Yield (``file:line``, question, answers as written) of a ``.csv`` or ``.tsv`` file.

    Raises:
        DenseHNError: another number of columns, an empty question, broken quotes.
    """
    with reading.open_text(path, what) as file:
        # As DPR reads it.
        rows = csv.reader(file, delimiter="\t")
        line = 1
        try:
            for row in rows:
                where = f"{path}:{line}"
                if len(row) != 2 or not row[0].strip():
                    raise DenseHNError(
                        f"{where}: expected `question<TAB>['answer', …]`, got "
                        f"{len(row)} columns or no question"
                    )
                yield where, *row
                line = rows.line_num + 1
        except csv.Error as error:
            raise DenseHNError(
                f"{path}:{line}: {error}; is a quote never closed?"
            ) from None


def _parse(value: Any) -> tuple[str, dict[str, str]]:
    """The corpus, and the file of each split."""
    corpus, given = by_split.parse(value, "dpr", FORM)
    for split, path in given.items():
        if not isinstance(path, str) or reading.kind(path) not in (JSON, *QUESTIONS):
            raise DenseHNError(
                f"dpr: {split}: expected a {', '.join((JSON, *QUESTIONS))} file, got "
                f"{path!r}"
            )
    return corpus, given


def _judged(read: Collection, split: str, path: str) -> None:
    """Take topics, judgements and hard negatives out of a ``.json`` file."""
    topics, qrels, hard = {}, {}, {}
    read_so_far = tqdm(entries(path, split), desc=f"Reading {split}", unit=" topics")
    for number, (where, question, entry) in enumerate(read_so_far):
        qid = topic_id(split, number)
        positive = _passages(entry, "positive_ctxs", where)
        negative = _passages(entry, "hard_negative_ctxs", where)
        known = [docid for docid in negative if docid in read.corpus]
        topics[qid] = question
        qrels[qid] = {docid: 1 for docid in positive if docid in read.corpus}
        if known:
            hard[qid] = {docid: float(-rank) for rank, docid in enumerate(known)}
        for what, lacking in (
            ("positives", sum(docid not in read.corpus for docid in positive)),
            ("hard negatives", len(negative) - len(known)),
        ):
            read.left_out[f"{split} {what} that the corpus lacks"] += lacking
    read.topics[split], read.qrels[split] = topics, qrels
    if hard:
        read.runs.setdefault(HARD, {})[split] = hard


def _passages(entry: dict[str, Any], key: str, where: str) -> list[str]:
    """The ids of an entry's passages, each once."""
    docids: dict[str, None] = {}
    passages = entry.get(key) or []
    if not isinstance(passages, list):
        raise DenseHNError(f"{where}: {key} is no list")
    for passage in passages:
        fields = passage if isinstance(passage, dict) else {}
        docid = next((fields[name] for name in PASSAGE if name in fields), None)
        if not isinstance(docid, str | int):
            raise DenseHNError(
                f"{where}: a passage of {key} without {' or '.join(PASSAGE)}"
            )
        docids[str(docid)] = None
    return list(docids)
