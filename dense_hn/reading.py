"""Text files line by line, and JSON files value by value, gzipped or not."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from dense_hn import DenseHNError
from dense_hn.files import require_file

# Characters of a JSON file, and bytes of any, that are read at a time.
CHUNK = 1 << 20
# Bytes of a line, or characters of a JSON object, beyond which it is not one: what is packed
# without a line's end would fill the memory.
MOST = 1 << 28
# The longest piece of JSON, besides a string, that makes sense only when it is whole.
LONGEST = len("-Infinity")
_BETWEEN = re.compile(r"[\s,]*")


def kind(path: str | Path) -> str:
    """A file's ending in small letters, that of the packed file for ``.gz``: ``.tsv``."""
    path = Path(path)
    return Path(path.stem if path.suffix == ".gz" else path).suffix.lower()


@contextmanager
def open_text(path: str | Path, what: str, by_line: bool = True) -> Iterator[TextIO]:
    """Open a UTF-8 file, packed where its name ends in ``.gz``; lines end with LF alone.

    Args:
        path: the file.
        what: what it is, for messages.
        by_line: whether its lines are to have ends; a JSON array may be one line.

    Raises:
        DenseHNError: ``what`` is no file there; while it is read: bytes that are not
            UTF-8, broken gzip, a line that does not end.
    """
    path = require_file(path, what)
    with open(path, "rb") as file:
        read = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        if by_line:
            read = io.BufferedReader(_Lines(read, path), CHUNK)
        try:
            yield io.TextIOWrapper(read, encoding="utf-8", newline="\n")
        except UnicodeDecodeError as error:
            raise DenseHNError(
                f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it"
            ) from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DenseHNError(
                f"{path}: broken gzip ({error}); fetch it anew, or take .gz off its name if "
                "it is not packed"
            ) from None


class _Lines(io.RawIOBase):
    """Bytes of a file, as long as its lines have ends."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        # Lines that have ended, and bytes since then.
        self._ended, self._since = 0, 0

    def readable(self) -> bool:
        """Called by io.BufferedReader."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Called by io.BufferedReader."""
        chunk = self._file.read(len(buffer))
        buffer[: len(chunk)] = chunk
        end = chunk.rfind(b"\n")
        self._ended += chunk.count(b"\n")
        self._since = self._since + len(chunk) if end < 0 else len(chunk) - end - 1
        if self._since > MOST:
            raise DenseHNError(
                f"{self._path}:{self._ended + 1}: a line of more than {MOST >> 20} MB; one "
                "that long has lost its end, or is no text"
            )
        return len(chunk)


def lines(path: str | Path, what: str) -> Iterator[tuple[str, str]]:
    """Yield (``file:line``, text without its end) of every line.

    Raises:
        DenseHNError: as :func:`open_text`; an empty line.
    """
    # A string, since formatting a Path takes as long as splitting the line.
    name = str(path)
    with open_text(path, what) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                raise DenseHNError(f"{name}:{number}: empty line; remove it")
            yield f"{name}:{number}", line.rstrip("\r\n")


def parsed(line: str, where: str) -> dict[str, Any]:
    """The JSON object in a line.

    Raises:
        DenseHNError: broken JSON, or no object.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DenseHNError(f"{where}: broken JSON ({error}); mend the line") from None
    return require_object(value, where)


def read_object(path: str | Path, what: str) -> dict[str, Any]:
    """The JSON object that a file is.

    Raises:
        DenseHNError: as :func:`open_text` and :func:`parsed`.
    """
    with open_text(path, what) as file:
        return parsed(file.read(), str(path))


def require_unicode(text: str, where: str) -> None:
    """Refuse halves of characters, which JSON can name and no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DenseHNError(f"{where}: is no Unicode text: {error}") from None


def require_object(value: Any, where: str) -> dict[str, Any]:
    """Return ``value`` if it is a JSON object, or say what it is."""
    if not isinstance(value, dict):
        raise DenseHNError(f"{where}: a {type(value).__name__}, not a JSON object")
    return value


def objects(path: str | Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (``file:line`` of its start, object) of the JSON objects in a file.

    They stand in one array, or one after another, on as many lines as they like. One at
    a time is in memory, with up to :data:`CHUNK` characters of what follows.

    Raises:
        DenseHNError: as :func:`open_text`; broken JSON, something else than objects, or
            something behind the array.
    """
    decode = json.JSONDecoder().raw_decode
    with open_text(path, what, by_line=False) as file:
        text, at, line = "", 0, 1
        # Known from the first character on.
        array = None
        while True:
            end = _BETWEEN.match(text, at).end()
            line, at = line + text.count("\n", at, end), end
            where = f"{path}:{line}"
            if at == len(text):
                text, at = file.read(CHUNK), 0
                if text:
                    continue
                if array:
                    raise DenseHNError(f"{where}: the array has no end; fetch it anew")
                return
            if array is None:
                array = text[at] == "["
                at += array
                continue
            if array and text[at] == "]":
                if text[at + 1 :].strip() or file.read().strip():
                    raise DenseHNError(f"{where}: something follows the array")
                return
            try:
                value, end = decode(text, at)
            except json.JSONDecodeError as error:
                if len(text) - at > MOST:
                    raise DenseHNError(
                        f"{where}: a JSON object of more than {MOST >> 20} MB; one that "
                        "long has lost its end, or is no text"
                    ) from None
                cut = error.pos >= len(text) - LONGEST or error.msg.startswith(
                    "Unterminated"
                )
                more = file.read(max(CHUNK, len(text) - at)) if cut else ""
                if not more:
                    line += text.count("\n", at, error.pos)
                    raise DenseHNError(
                        f"{path}:{line}: broken JSON ({error.msg}); mend it"
                    ) from None
                text, at = text[at:] + more, 0
                continue
            except (ValueError, RecursionError) as error:
                raise DenseHNError(f"{where}: broken JSON ({error}); mend it") from None
            yield where, require_object(value, where)
            line, at = line + text.count("\n", at, end), end
