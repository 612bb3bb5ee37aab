"""The answers of topics, in the formats that users of DPR and Pyserini have.

* ``.csv``, ``.tsv``: DPR's ``question<TAB>['answer', …]``, as in nq-test.qa.csv;
* ``.json``: DPR's training files, of which ``question`` and ``answers`` are taken;
* ``.jsonl``: ``{"qid": …, "answers": ["…"]}`` (or ``id``, ``_id``), an object a line, and
  ``question``, if it is there.

Each is read gzipped, too, where the name ends in ``.gz``. Topics of DPR's files have no
ids. They are called by their place: 0, 1, … as in Pyserini, or, of a named split,
test-0, test-1, … as dense_hn.collections calls them.
"""

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dense_hn import DenseHNError, reading, topic_formats
from dense_hn.collections import dpr
from dense_hn.ids import require_id

JSONL = ".jsonl"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a topic."""

    # None where the file has none.
    question: str | None
    # As written; a topic may have none.
    answers: list[str]


def read_answers(path: str | Path, split: str | None = None) -> dict[str, Asked]:
    """Read the answers of every topic in a file, in its order.

    Args:
        path: as the module says.
        split: what DPR's topics are called by; default: by their number alone.

    Raises:
        DenseHNError: another ending, what is not of the file's format, answers that are no
            list of strings, a topic that occurs twice, a file with no topic, a split
            where topics have ids.
    """
    kind = reading.kind(path)
    if kind not in (JSONL, dpr.JSON, *dpr.QUESTIONS):
        raise DenseHNError(
            f"{path}: expected answers in a .csv or .tsv (question<TAB>['answer', …]), a "
            f'.json (DPR\'s training file) or a .jsonl ({{"qid": …, "answers": […]}}) file'
        )
    if split and kind == JSONL:
        raise DenseHNError(
            f"--split {split}: {path} has ids of its own; leave the split out"
        )
    found: dict[str, Asked] = {}
    for where, qid, question, answers in tqdm(
        _rows(path, kind, split), desc="Reading answers", unit=" topics"
    ):
        if not isinstance(answers, list) or not all(
            isinstance(answer, str) for answer in answers
        ):
            raise DenseHNError(
                f"{where}: the answers are no list of strings; write ['answer', …]"
            )
        for text in answers if question is None else (question, *answers):
            reading.require_unicode(text, where)
        if qid in found:
            raise DenseHNError(f"{where}: topic {qid!r} occurs twice; keep one")
        found[qid] = Asked(question, answers)
    if not found:
        raise DenseHNError(f"{path}: no topic in this file")
    return found


def _rows(
    path: str | Path, kind: str, split: str | None
) -> Iterator[tuple[str, str, str | None, Any]]:
    """(``file:line``, qid, question, what should be its answers) of every topic."""
    if kind == JSONL:
        yield from _jsonl(path)
        return
    if kind == dpr.JSON:
        read = (
            (where, question, entry.get("answers"))
            for where, question, entry in dpr.entries(path, "answers")
        )
    else:
        read = (
            (where, question, _listed(written))
            for where, question, written in dpr.questions(path, "answers")
        )
    for number, (where, question, answers) in enumerate(read):
        qid = dpr.topic_id(split, number) if split else str(number)
        yield where, qid, question, answers


def _jsonl(path: str | Path) -> Iterator[tuple[str, str, str | None, Any]]:
    for where, line in reading.lines(path, "answers"):
        fields = reading.parsed(line, where)
        qid = next((fields[key] for key in topic_formats.QID if key in fields), None)
        if type(qid) is int:
            qid = str(qid)
        question = fields.get("question")
        if not isinstance(qid, str) or not isinstance(question, str | None):
            raise DenseHNError(
                f"{where}: expected a string under one of "
                f"{', '.join(topic_formats.QID)}, and question, if there, to be one"
            )
        require_id(qid, "query id", where)
        yield where, qid, question, fields.get("answers")


def _listed(written: str) -> Any:
    """The Python literal that DPR writes answers as; None if it is none."""
    with warnings.catch_warnings():
        # Patterns have backslashes that Python does not know.
        warnings.simplefilter("ignore")
        try:
            return ast.literal_eval(written)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
