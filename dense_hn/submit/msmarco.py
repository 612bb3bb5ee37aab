"""Writes MS MARCO packages from TREC runs."""

import bz2
import io
import json
from collections.abc import Container, Mapping
from functools import partial
from pathlib import Path

from dense_hn.files import whole_file, whole_folder
from dense_hn.submit import packages
from dense_hn.submit.boards import SPLITS, MsMarco
from dense_hn.submit.inputs import cut, read_known
from dense_hn.submit.problems import Problems


def make(
    output: str | Path,
    id_: str,
    board: MsMarco,
    runs: Mapping[str, str | Path],
    topics: Mapping[str, Mapping[str, str]],
    topics_paths: Mapping[str, str | Path],
    docids: Container[str] | None,
    docids_path: str | Path | None,
    metadata: Mapping[str, str],
) -> str:
    """Write a package below ``output``, which appears only when its check finds nothing.

    Other things in ``output``, such as a clone of the board's repository, are left as
    they are; a package of the same id is replaced.

    Args:
        output: folder that will hold ``submissions``.
        id_: ``yyyymmdd-name``.
        board: what is asked.
        runs: TREC runs of ``dev`` and ``eval``.
        topics: of ``dev`` and ``eval``.
        topics_paths: their files, for messages.
        docids: of the corpus, or None to take any.
        docids_path: their file, for messages.
        metadata: the metadata file.

    Returns:
        What was checked, in words.

    Raises:
        DenseHNError: id or metadata are not as the board asks; a run that cannot be
            read, or lists a topic or docid that is not known.
    """
    problems = Problems()
    text = f"{json.dumps(metadata, ensure_ascii=False, indent=2)}\n".encode()
    day = packages.submitted(id_, "--id", problems)
    packages.check_metadata("metadata", io.BytesIO(text), day, problems)
    problems.refuse()
    read = {
        split: read_known(
            runs[split], topics[split], topics_paths[split], docids, docids_path
        )
        for split in SPLITS
    }
    folder = Path(output, packages.run_name(id_, "dev")).parent
    metadata_path = Path(output, packages.metadata_name(id_))
    with (
        whole_folder(folder, "*.txt.bz2") as new,
        whole_file(metadata_path) as new_metadata,
    ):
        new_metadata.write_bytes(text)
        files = {packages.metadata_name(id_): partial(open, new_metadata, "rb")}
        for split in SPLITS:
            name = packages.run_name(id_, split)
            files[name] = partial(open, new / Path(name).name, "rb")
            with bz2.open(
                new / Path(name).name, "wt", encoding="utf-8", newline="\n"
            ) as file:
                for qid, hits in cut(read[split], board.hits, runs[split]):
                    file.writelines(
                        f"{qid}\t{docid}\t{rank}\n"
                        for rank, docid in enumerate(hits, 1)
                    )
        said = packages.check_files(files, output, board, topics, docids, problems)
        problems.refuse()
    return said
