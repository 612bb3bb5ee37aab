"""Runs as DPR's retrieval JSON, as Pyserini's convert_trec_run_to_dpr_retrieval_run writes.

``{qid: {"question", "answers", "contexts": [{"docid", "score", "text", "has_answer"}]}}``,
contexts in the order of the run's scores, the text a title, a line's end and the text
(of a passage without a title, the first line is empty), the score a string.

Source: pyserini.eval.convert_trec_run_to_dpr_retrieval_run, with --store-raw.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dense_hn import DenseHNError, trec
from dense_hn.answers.files import Asked
from dense_hn.answers.match import Finder, searchable
from dense_hn.answers.passages import Passage
from dense_hn.files import require_file_or_none, whole_file


def require_no_other(path: str | Path) -> None:
    """Check that retrieval JSON may be written there.

    Raises:
        DenseHNError: as files.require_file_or_none; a file of another kind.
    """
    if require_file_or_none(path).is_file():
        with open(path, "rb") as file:
            start = [file.readline().split(b":")[0].strip() for _ in range(3)]
        if start[0] and (start[0] != b"{" or start[2] != b'"question"'):
            raise DenseHNError(
                f"{path}: is no retrieval JSON, and would be replaced by one; name "
                "another file"
            )


def questions(
    asked: Mapping[str, Asked],
    run: trec.Run,
    topics_path: str | None,
    run_path: str,
    path: str,
) -> dict[str, str]:
    """The question of every topic of a run: of the topics file, if one is given.

    Args:
        asked: of these topics and maybe others.
        run: whose topics are wanted.
        topics_path: topics file, if any.
        run_path: the file of the run, for messages.
        path: the file of the answers, for messages.

    Raises:
        DenseHNError: there is none for a topic.
    """
    if topics_path:
        topics = trec.read_topics(topics_path)
        trec.require_covered(run, topics, run_path, topics_path, "question")
        return {qid: topics[qid] for qid in run}
    for qid in run:
        if asked[qid].question is None:
            raise DenseHNError(
                f"{path}: no question of query {qid!r} there; name the topics by --topics"
            )
    return {qid: asked[qid].question for qid in run}


def contexts(
    hits: Mapping[str, float],
    passages: Mapping[str, Passage],
    finder: Finder,
    patterns: bool,
) -> list[dict[str, Any]]:
    """A topic's hits, best first, as the JSON has them.

    Args:
        hits: docid to score.
        passages: of all hits.
        finder: of the topic's answers.
        patterns: whether they are patterns.
    """
    return [
        {
            "docid": docid,
            # As in Pyserini's runs.
            "score": f"{hits[docid]:.6f}",
            "text": passages[docid].contents(),
            "has_answer": finder.finds_in(searchable(passages[docid].text, patterns)),
        }
        for docid in trec.ranked(hits)
    ]


def write_retrieval(path: str | Path, retrieval: Mapping[str, Any]) -> None:
    """Write what the module describes."""
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        json.dump(retrieval, file, indent=4, ensure_ascii=False)
