"""Outputs that appear under their final name only when they are whole."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from dense_hn import DenseHNError

log = logging.getLogger("dense_hn")

# In a folder of parts, what they are made from.
FACTS = "made_from.json"


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it when the block succeeds.

    When the block raises, the temporary file is removed and ``path`` is left as
    it was. Where it is a link, what it leads to is written.

    Raises:
        DenseHNError: as :func:`require_file_or_none`, before the block.
    """
    path = require_file_or_none(path).resolve()
    partial = partial_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(
    path: str | Path, *holds: str, also: Sequence[str] = ()
) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it when the block succeeds.

    An older folder of that name is replaced only then. When the block raises, the
    temporary folder is removed and ``path`` is left as it was. Where it is a link, the
    folder that it leads to is written.

    Args:
        path: the folder to write.
        holds: as :func:`require_replaceable`'s.
        also: as there.

    Raises:
        DenseHNError: as :func:`require_replaceable`, before the block.
    """
    path = require_replaceable(path, *holds, also=also).resolve()
    partial = partial_of(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _replace(path, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(path: Path, partial: Path) -> None:
    """Put a folder in the place of another, which takes its place again if that fails."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    try:
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def parts(path: str | Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a folder beside ``path`` for its parts, from which a stopped run goes on.

    It is removed when the block succeeds or raises a DenseHNError. It stays when the
    process is killed or interrupted (of several, when another than the first ends), for
    the next call with the same facts; one with others starts with an empty folder.

    Args:
        path: what is made of the parts.
        facts: what they are made from, as JSON.
    """
    folder = parts_of(path)
    said = json.dumps(dict(facts), indent=2).encode()
    there = folder / FACTS
    if there.is_file() and there.read_bytes() == said:
        log.info("%s: goes on with what is in %s", path, folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        there.write_bytes(said)
    try:
        yield folder
    except DenseHNError:
        forget_parts(path)
        raise
    forget_parts(path)


def forget_parts(path: str | Path) -> None:
    """Remove the parts of what is there, or cannot be made."""
    # Another process may be writing to them still.
    shutil.rmtree(parts_of(path), ignore_errors=True)


def parts_of(path: str | Path) -> Path:
    """The folder of the parts of what will be ``path``."""
    path = Path(path).resolve()
    return path.with_name(f".{path.name}.parts")


def partial_of(path: str | Path) -> Path:
    """The temporary name of what will be ``path``."""
    path = Path(path).resolve()
    return path.with_name(f".{path.name}.partial")


def require_replaceable(
    path: str | Path, *holds: str, also: Sequence[str] = ()
) -> Path:
    """Return ``path`` as a Path if it is free, empty, or a folder that we may replace.

    Args:
        path: the folder to write.
        holds: what a folder of its kind holds, glob patterns of which each is met.
        also: what it may hold besides.

    Raises:
        DenseHNError: it is a file, or a folder of another kind or with other things, or
            one that cannot be replaced: where a disk is mounted, or where we are.
    """
    path = Path(path)
    if path.is_mount() or Path.cwd().is_relative_to(path.resolve()):
        raise DenseHNError(f"{path}: cannot be replaced; name a new folder in it")
    if path.exists() and not path.is_dir():
        raise DenseHNError(f"{path}: is a file; name a folder to write")
    inside = sorted(path.iterdir()) if path.is_dir() else []
    missing = [pattern for pattern in holds if inside and not any(path.glob(pattern))]
    other = [
        item.name
        for item in inside
        if not any(fnmatch(item.name, pattern) for pattern in (*holds, *also))
    ]
    if missing or other:
        what = f"no {missing[0]}" if missing else other[0]
        raise DenseHNError(
            f"{path}: holds other things ({what}) and would be replaced; name a new "
            "folder"
        )
    return path


def require_file_or_none(path: str | Path) -> Path:
    """Return ``path`` as a Path if a file may take its place; for outputs, before the work.

    Raises:
        DenseHNError: there is a folder, or a device such as /dev/stdout, which a file
            would replace.
    """
    path = Path(path)
    if path.is_dir():
        raise DenseHNError(f"{path}: is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise DenseHNError(f"{path}: is no file, and cannot be replaced; name a file")
    return path


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_file(path: str | Path, what: str) -> Path:
    """Return ``path`` as a Path, or say that ``what`` is no file there."""
    path = Path(path)
    if path.is_dir():
        raise DenseHNError(f"{path}: {what}: this is a folder; name the file in it")
    if not path.exists():
        raise DenseHNError(f"{path}: {what} not found; check the path")
    return path


def require_folder(path: str | Path, what: str) -> Path:
    """Return ``path`` as a Path, or say that ``what`` is no folder there."""
    path = Path(path)
    if not path.is_dir():
        raise DenseHNError(f"{path}: {what} not found; check the path")
    return path
