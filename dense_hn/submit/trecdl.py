"""Writes and checks runs for the TREC Deep Learning track."""

import gzip
from collections.abc import Container, Mapping
from pathlib import Path

from dense_hn import DenseHNError, trec
from dense_hn.files import require_file, whole_file
from dense_hn.submit.boards import TrecDl
from dense_hn.submit.inputs import cut, read_known
from dense_hn.submit.problems import Problems
from dense_hn.submit.runs import TrecCheck, wrong_tag


def make(
    output: str | Path,
    board: TrecDl,
    run_path: str | Path,
    topics: Mapping[str, str],
    topics_path: str | Path,
    docids: Container[str] | None,
    docids_path: str | Path | None,
    tag: str,
) -> str:
    """Write a run, cut and tagged, which appears only when its check finds nothing.

    Args:
        output: run file to write, not packed.
        board: the track's task.
        run_path: TREC run.
        topics: the test topics.
        topics_path: their file, for messages.
        docids: of the corpus, or None to take any.
        docids_path: their file, for messages.
        tag: the run's name at TREC.

    Returns:
        What was checked, in words.

    Raises:
        DenseHNError: a tag that the track does not take; a file or folder that the run
            would replace; a run that cannot be read, or lists a topic or docid that is not
            known, or lacks a topic.
    """
    wrong = wrong_tag(tag, board)
    if wrong:
        raise DenseHNError(f"--tag: {wrong}")
    if str(output).endswith(".gz"):
        raise DenseHNError(
            f"{output}: the run is written unpacked; name it without .gz"
        )
    trec.require_no_other(output)
    for path in (run_path, topics_path):
        if Path(output).resolve() == Path(path).resolve():
            raise DenseHNError(f"{output}: would replace what it is made from")
    run = read_known(run_path, topics, topics_path, docids, docids_path)
    trec.require_covered(topics, run, topics_path, run_path, "hit")
    best = (
        (qid, {docid: run[qid][docid] for docid in hits})
        for qid, hits in cut(run, board.hits, run_path)
    )
    problems = Problems()
    with whole_file(output) as partial:
        trec.write_run(partial, best, tag)
        said = check(partial, board, topics, docids, tag, problems)
        problems.refuse()
    return said


def check(
    path: str | Path,
    board: TrecDl,
    topics: Mapping[str, str],
    docids: Container[str] | None,
    tag: str | None,
    problems: Problems,
) -> str:
    """Check a run, gzipped where its name ends in ``.gz``; arguments as in :func:`make`.

    Args:
        tag: the run's tag, or None to take any one that the track takes.
        problems: where everything wrong is noted.

    Returns:
        What was checked, in words.
    """
    path = require_file(path, "run")
    run = TrecCheck(
        name=str(path),
        most=board.hits,
        topics=topics,
        docids=docids,
        problems=problems,
        board=board,
        tag=tag,
    )
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        run.read(file)
    return f"{run.tag}: {run.lines} hits of {len(run.first)} topics"
