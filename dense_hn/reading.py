"""Text files line by line, and JSON files value by value, gzipped or not."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from dense_hn import DenseHNError
from dense_hn.files import require_file

# Characters of a JSON file that are read at a time.
CHUNK = 1 << 20
# The longest piece of JSON, besides a string, that makes sense only when it is whole.
LONGEST = len("-Infinity")
_BETWEEN = re.compile(r"[\s,]*")


def kind(path: str | Path) -> str:
    """A file's ending in small letters, that of the packed file for ``.gz``: ``.tsv``."""
    path = Path(path)
    return Path(path.stem if path.suffix == ".gz" else path).suffix.lower()


@contextmanager
def open_text(path: str | Path, what: str) -> Iterator[TextIO]:
    """Open a UTF-8 file, packed where its name ends in ``.gz``; lines end with LF alone.

    Raises:
        DenseHNError: ``what`` is no file there; while it is read: bytes that are not
            UTF-8, broken gzip.
    """
    path = require_file(path, what)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise DenseHNError(
                f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it"
            ) from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DenseHNError(
                f"{path}: broken gzip ({error}); fetch it anew, or take .gz off its name if "
                "it is not packed"
            ) from None


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
    with open_text(path, what) as file:
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
