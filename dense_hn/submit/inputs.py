"""What packages are made from, read and cut."""

import logging
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from dense_hn import DenseHNError, trec
from dense_hn.files import require_file

log = logging.getLogger("dense_hn")


def read_docids(path: str | Path) -> set[str]:
    """Read a file of docids, one a line, as ``docid`` in Pyserini's index folders.

    Raises:
        DenseHNError: a line that is empty or has white space, bytes that are not
            UTF-8, a file with no docid.
    """
    docids = set()
    with open(require_file(path, "docids"), "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                docid = line.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DenseHNError(
                    f"{path}:{number}: not UTF-8 ({error.reason} at byte "
                    f"{error.start}); convert it"
                ) from None
            if docid.split() != [docid]:
                raise DenseHNError(
                    f"{path}:{number}: docid {docid[:80]!r} is empty or has white space; "
                    "give one docid a line"
                )
            docids.add(docid)
    if not docids:
        raise DenseHNError(f"{path}: no docid in this file")
    return docids


def read_known(
    path: str | Path,
    topics: Mapping[str, str],
    topics_path: str | Path,
    docids: Container[str] | None,
    docids_path: str | Path | None,
) -> trec.Run:
    """Read a TREC run of known topics and documents; arguments as in :func:`make`.

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
