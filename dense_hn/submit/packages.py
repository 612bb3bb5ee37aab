"""An MS MARCO package, a folder or an archive of it, checked without unpacking it.

It holds three files and nothing else::

    submissions/ID/dev.txt.bz2
    submissions/ID/eval.txt.bz2
    submissions/ID-metadata.json
"""

import bz2
import json
import re
from collections.abc import Container, Mapping
from contextlib import ExitStack
from datetime import date, datetime
from io import BufferedIOBase
from pathlib import Path

from dense_hn.submit.archives import Files, plain_files
from dense_hn.submit.boards import SPLITS, TYPES, MsMarco
from dense_hn.submit.problems import Problems
from dense_hn.submit.runs import BROKEN, MsMarcoCheck

# Bytes of a metadata file, at most.
METADATA_SIZE = 1 << 20

REQUIRED = ("team", "model_description", "paper", "code", "type")
MAY_BE_EMPTY = ("paper", "code")


def run_name(id_: str, split: str) -> str:
    """Path of a run in a package."""
    return f"submissions/{id_}/{split}.txt.bz2"


def metadata_name(id_: str) -> str:
    """Path of the metadata in a package."""
    return f"submissions/{id_}-metadata.json"


def check(
    path: str | Path,
    board: MsMarco,
    topics: Mapping[str, Mapping[str, str]],
    docids: Container[str] | None,
    problems: Problems,
) -> str:
    """Check a package.

    Args:
        path: folder that holds ``submissions``, or a .tar, .tar.gz, .tgz or .zip of it.
        board: what is asked.
        topics: of ``dev`` and of ``eval``.
        docids: of the corpus, or None to take any.
        problems: where everything wrong is noted.

    Returns:
        What was checked, in words.

    Raises:
        DenseHNError: there is no folder and no archive at ``path``.
    """
    with ExitStack() as stack:
        try:
            files = plain_files(Path(path), problems, stack)
        except BROKEN as error:
            problems.add("broken file", str(path), f"cannot be read ({error})")
            return ""
        return check_files(files, path, board, topics, docids, problems)


def check_files(
    files: Files,
    path: str | Path,
    board: MsMarco,
    topics: Mapping[str, Mapping[str, str]],
    docids: Container[str] | None,
    problems: Problems,
) -> str:
    """As :func:`check`, of ``{path in the package: what opens it}``."""
    ids = sorted({id_ for name in files if (id_ := _id_of(name))})
    if len(ids) != 1:
        what = f"{len(ids)} submissions ({', '.join(ids)})" if ids else "no submission"
        what += f"; one is expected: {run_name('ID', 'dev')} and so on"
        problems.add("layout", str(path), what)
    left = dict(files)
    said = []
    for id_ in ids:
        day = submitted(id_, f"{path}/{metadata_name(id_)}", problems)
        expected = {run_name(id_, split): split for split in SPLITS}
        for name, split in {**expected, metadata_name(id_): None}.items():
            where = f"{path}/{name}"
            if name not in files:
                problems.add("layout", where, "this file is missing")
                continue
            try:
                with left.pop(name)() as file:
                    if split is None:
                        check_metadata(where, file, day, problems)
                        continue
                    run = MsMarcoCheck(
                        name=where,
                        most=board.hits,
                        topics=topics[split],
                        docids=docids,
                        problems=problems,
                    )
                    with bz2.open(file) as unpacked:
                        run.read(unpacked)
                    said.append(f"{split} {run.lines} hits of {len(run.first)} topics")
            except BROKEN as error:
                problems.add("broken file", where, f"cannot be read ({error})")
    for name in left:
        problems.add("layout", f"{path}/{name}", "this file does not belong here")
    return f"{', '.join(ids)}: {', '.join(said)}"


def submitted(id_: str, where: str, problems: Problems) -> date | None:
    """The date in an id ``yyyymmdd-name``; None, and a problem, where it is another."""
    match = re.fullmatch(r"([0-9]{8})-[A-Za-z0-9][A-Za-z0-9._-]*", id_)
    if match is None:
        what = f"id {id_!r} is not `yyyymmdd-name` (letters, digits, '.', '_', '-')"
        problems.add("id", where, what)
        return None
    try:
        return datetime.strptime(match[1], "%Y%m%d").date()
    except ValueError:
        problems.add("id", where, f"id {id_!r} does not begin with a date")
        return None


def check_metadata(
    name: str, file: BufferedIOBase, day: date | None, problems: Problems
) -> None:
    """Check a metadata file.

    Args:
        name: file name in messages.
        file: its bytes.
        day: of the submission, if its id says so, which an embargo is counted from.
        problems: where everything wrong is noted.
    """

    def add(what: str, where: str = name) -> None:
        problems.add("metadata", where, what)

    text = file.read(METADATA_SIZE + 1)
    if len(text) > METADATA_SIZE:
        return add(f"more than {METADATA_SIZE} bytes")
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError as error:
        return add(f"broken JSON ({error.msg})", f"{name}:{error.lineno}")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        return add(f"not UTF-8 ({error.reason})", f"{name}:{line}")
    except RecursionError:
        return add("broken JSON (nested too deeply)")
    except ValueError as error:
        return add(f"broken JSON ({error})")
    if not isinstance(metadata, dict):
        return add(f"a {type(metadata).__name__}, not a JSON object")
    for key in REQUIRED:
        if key not in metadata:
            add(f"{key!r} is missing")
    for key, value in metadata.items():
        # A misspelt embargo_until would make public what should not be.
        if key not in (*REQUIRED, "embargo_until"):
            add(f"unknown key {key!r}; there are {', '.join(REQUIRED)}, embargo_until")
        elif not isinstance(value, str):
            add(f"{key!r} is a {type(value).__name__}, not a string")
        elif not value.strip() and key not in MAY_BE_EMPTY:
            add(f"{key!r} is empty")
        elif key == "type" and value not in TYPES:
            add(f"type {value!r} is not one of {', '.join(map(repr, TYPES))}")
        elif key == "embargo_until" and (wrong := _wrong_embargo(value, day)):
            add(wrong)
    return None


def _wrong_embargo(value: str, day: date | None) -> str | None:
    """The board's example: of 2020/11/01, nine months last until 2021/07/31."""
    try:
        until = datetime.strptime(value, "%Y/%m/%d").date()
    except ValueError:
        return f"embargo_until {value!r} is not a date `yyyy/mm/dd`"
    if day is None:
        return None
    years, month = divmod(day.month - 1 + 9, 12)
    end = (day.year + years, month + 1, day.day)
    if (until.year, until.month, until.day) < end:
        return None
    return f"embargo_until {value!r} is more than nine months after {day:%Y/%m/%d}"


def _id_of(name: str) -> str | None:
    """The id that a file of the package belongs to by its name."""
    ending = r"(?:/(?:dev|eval)\.txt\.bz2|-metadata\.json)"
    match = re.fullmatch(rf"submissions/([^/]+?){ending}", name)
    return match and match[1]
