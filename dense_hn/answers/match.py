"""Whether a passage holds an answer, as DPR and Pyserini decide it.

String match: text and answer are taken apart by DrQA's SimpleTokenizer, after Unicode's
canonical decomposition (NFD). A token is a run of letters, numbers and marks, or one other
visible character. The answer is there when its tokens, in lower case, follow one another
in the text. So ``Beyonce`` does not match ``Beyoncé``, and ``U.S.`` matches ``U. S.``.

Pattern match, for CuratedTREC: an answer is a regular expression of Python's, searched in
the decomposed text, whatever the case; ^ and $ stand for a line's.

Unlike there, an answer without any token, which would be in every passage, is in none.

Source: the code of arXiv 2004.04906 (DPR), dpr/data/qa_validation.py, and of Chen et al.
2017 (DrQA); pyserini.eval.evaluate_dpr_retrieval.
"""

import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

import regex

from dense_hn import DenseHNError, trec
from dense_hn.answers.files import Asked

log = logging.getLogger("dense_hn")

TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")
PATTERN = re.IGNORECASE | re.UNICODE | re.MULTILINE


def searchable(text: str, patterns: bool = False) -> str:
    """A passage's text as a :class:`Finder` searches it.

    Args:
        text: without the title.
        patterns: whether for pattern match.

    Returns:
        The decomposed text; for string match, its tokens in lower case, each between
        blanks, which no token holds.
    """
    text = unicodedata.normalize("NFD", text)
    if patterns:
        return text
    # Each by itself, since the lower case of a sigma depends on its neighbours.
    return f" {' '.join(token.lower() for token in TOKEN.findall(text))} "


class Finder:
    """Looks for a topic's answers in texts."""

    def __init__(self, answers: Iterable[str], patterns: bool = False) -> None:
        """Args: the answers, and whether they are patterns."""
        self._strings: list[str] = []
        self._patterns: list[re.Pattern] = []
        # Answers that are found nowhere: without a token, or no valid pattern.
        self.unusable: list[str] = []
        for answer in answers:
            form = searchable(answer, patterns)
            if not form.strip():
                self.unusable.append(answer)
            elif not patterns:
                self._strings.append(form)
            else:
                try:
                    self._patterns.append(re.compile(form, PATTERN))
                except (re.error, RecursionError, OverflowError):
                    self.unusable.append(answer)

    def finds_in(self, text: str) -> bool:
        """Whether an answer is in a text, given as :func:`searchable` makes it."""
        return any(string in text for string in self._strings) or any(
            pattern.search(text) for pattern in self._patterns
        )


def finders(
    asked: Mapping[str, Asked],
    topics: Iterable[str],
    topics_path: str | Path,
    path: str | Path,
    patterns: bool,
) -> dict[str, Finder]:
    """A finder for each of the topics; those whose answers cannot be found are told.

    Args:
        asked: answers, by topic.
        topics: those that are wanted.
        topics_path: where they were named, for messages.
        path: the file of the answers, for messages.
        patterns: whether answers are patterns.

    Raises:
        DenseHNError: a topic that has no answers in the file.
    """
    topics = dict.fromkeys(topics, "")
    if topics.keys().isdisjoint(asked):
        raise DenseHNError(
            f"{topics_path}: none of the {len(topics)} queries, such as "
            f"{next(iter(topics))!r}, is among the {len(asked)} of {path}, such as "
            f"{next(iter(asked))!r}; name files of the same topics (--split says how those "
            "of DPR's files are called)"
        )
    trec.require_covered(topics, asked, topics_path, path, "answers")
    made = {qid: Finder(asked[qid].answers, patterns) for qid in topics}
    unusable = [(qid, answer) for qid in made for answer in made[qid].unusable]
    if unusable:
        log.warning(
            "%s: %d answers hold %s, such as %r of query %r; they are found in no passage",
            *(path, len(unusable)),
            "no valid pattern" if patterns else "no letter or other visible character",
            *unusable[0][::-1],
        )
    without = sum(not asked[qid].answers for qid in topics)
    if without:
        log.warning(
            "%s: %d of %d topics have an empty list of answers; they count with 0",
            *(path, without, len(topics)),
        )
    return made
