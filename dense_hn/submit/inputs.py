"""The runs that packages are made from, read and cut."""

import logging
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from dense_hn import trec

log = logging.getLogger("dense_hn")


def read_known(
    path: str | Path,
    topics: Mapping[str, str],
    topics_path: str | Path,
    docids: Container[str] | None,
    docids_path: str | Path | None,
) -> trec.Run:
    """Read a TREC run of known topics and documents.

    Args:
        path: the run.
        topics: its topics.
        topics_path: their file, for messages.
        docids: of the corpus, or None to take any.
        docids_path: their file, for messages.

    Raises:
        DenseHNError: as trec.read_run; a topic or docid that is not known.
    """
    run = trec.read_run(path)
    trec.require_covered(run, topics, path, topics_path, "text")
    if docids is not None:
        trec.require_known(run, docids, path, docids_path)
    return run


def cut(run: trec.Run, most: int, path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """(qid, its best ``most`` docids), best first; logs how many hits are left out."""
    left_out = sum(max(0, len(hits) - most) for hits in run.values())
    if left_out:
        log.warning("%s: cut to %d hits a topic, without %d", path, most, left_out)
    for qid, hits in run.items():
        yield qid, trec.ranked(hits)[:most]
