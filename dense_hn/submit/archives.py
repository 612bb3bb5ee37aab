"""What is in a folder or an archive, without unpacking it.

Archives are read as streams: nothing is written; links and paths that lead outside are
refused, not followed.
"""

import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from io import BufferedIOBase
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dense_hn import DenseHNError
from dense_hn.submit.problems import Problems

# Members of an archive that are looked at.
MEMBERS = 1000

Files = Mapping[str, Callable[[], BufferedIOBase]]


class _Member(NamedTuple):
    name: str
    # "" for a plain file; else what it is instead.
    instead: str
    open: Callable[[], BufferedIOBase]


def plain_files(path: Path, problems: Problems, stack: ExitStack) -> Files:
    """The plain files of a folder or an archive; a problem for all else in it.

    Args:
        path: folder, or .tar, .tar.gz, .tgz or .zip.
        problems: where everything that is no plain file is noted.
        stack: keeps the archive open.

    Returns:
        ``{path inside: what opens it}``.

    Raises:
        DenseHNError: there is no folder and no archive at ``path``.
        OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile: the archive
            is broken.
    """
    if path.is_dir():
        members = _folder(path)
    elif not path.is_file():
        raise DenseHNError(f"{path}: package not found; check the path")
    elif path.name.endswith((".tar", ".tar.gz", ".tgz")):
        members = _tar(path, stack)
    elif path.suffix == ".zip":
        members = _zip(path, stack)
    else:
        raise DenseHNError(
            f"{path}: neither a folder nor a .tar, .tar.gz, .tgz or .zip; name one"
        )
    files = {}
    for member in islice(members, MEMBERS):
        where = f"{path}/{member.name}"
        parts = PurePosixPath(member.name).parts
        name = "/".join(parts)
        if ".." in parts or name.startswith("/") or "\\" in name:
            problems.add("layout", where, "a path that leads out of the package")
        elif member.instead:
            problems.add("layout", where, f"{member.instead}, not a plain file")
        elif name in files:
            problems.add("layout", where, "this name occurs twice")
        else:
            files[name] = member.open
    if next(members, None) is not None:
        problems.add("layout", str(path), f"more than {MEMBERS} files; not looked at")
    return files


def _folder(path: Path) -> Iterator[_Member]:
    for folder, folders, names in os.walk(path):
        for name in sorted(folders + names):
            file = Path(folder, name)
            mode = file.lstat().st_mode
            if not stat.S_ISDIR(mode):
                inside = file.relative_to(path).as_posix()
                yield _Member(inside, _instead(mode), partial(file.open, "rb"))


def _tar(path: Path, stack: ExitStack) -> Iterator[_Member]:
    mode = "r:" if path.suffix == ".tar" else "r:gz"
    archive = stack.enter_context(tarfile.TarFile.open(path, mode))
    for info in archive:
        if info.isdir() and ".." not in PurePosixPath(info.name).parts:
            continue
        instead = "" if info.isreg() else "a link, folder or device"
        yield _Member(info.name, instead, partial(archive.extractfile, info))


def _zip(path: Path, stack: ExitStack) -> Iterator[_Member]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    for info in archive.infolist():
        if info.is_dir() and ".." not in PurePosixPath(info.filename).parts:
            continue
        # The upper half is a Unix mode where the archive was made on Unix, or else 0; of
        # which Python's writestr says the permissions alone.
        instead = _instead(stat.S_IFMT(info.external_attr >> 16) or stat.S_IFREG)
        if info.flag_bits & 1:
            instead = "encrypted"
        elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            instead = "packed in another way than deflate"
        yield _Member(info.filename, instead, partial(archive.open, info))


def _instead(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link"
    return "" if stat.S_ISREG(mode) else "a folder or device"
