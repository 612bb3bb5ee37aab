"""Long columns of texts and token ids: Arrow, in memory or mapped from a file.

A column is cut into pieces of :data:`ROWS` rows, the last one shorter, so that a row is
found by dividing. Files are Arrow's IPC files, which pyarrow and `datasets` open, too.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from operator import index
from pathlib import Path

import numpy as np
import pyarrow as pa

ROWS = 2**13


class Texts(Sequence[str]):
    """A column of texts."""

    def __init__(self, pieces: Sequence[pa.Array]) -> None:
        """Take pieces of ``pa.large_string()``."""
        self._pieces = pieces
        self._length = sum(map(len, pieces))

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        """Put texts into a column in memory."""
        if isinstance(texts, cls):
            return texts
        return cls([pa.array(part, pa.large_string()) for part in cut(texts)])

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            yield from piece.to_pylist()

    def __getitem__(self, row):
        """The text of a row, or a list of those of a slice."""
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        row = index(row)
        piece, place = divmod(row + len(self) if row < 0 else row, ROWS)
        return self._pieces[piece][place].as_py()

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same texts in the same order."""
        if not isinstance(other, Sequence):
            return NotImplemented
        same = (ours == theirs for ours, theirs in zip(self, other, strict=False))
        return len(self) == len(other) and all(same)

    __hash__ = None


class Docids(Texts):
    """Docids in the order of a corpus, and the row of each.

    A row is found by a 64-bit hash, and the docid there compared: 16 bytes a docid where
    a dictionary takes about 150.
    """

    def __getstate__(self) -> dict[str, object]:
        """Another process may hash otherwise."""
        return {name: v for name, v in vars(self).items() if name != "_sorted"}

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """All hashes in their order, and the row of each; equal ones by row."""
        hashes = _hashes(self)
        order = hashes.argsort(kind="stable")
        return hashes[order], order

    def rows(self, docids: Sequence[str]) -> np.ndarray:
        """The row of each docid, int64; −1 where there is no such docid."""
        hashes, order = self._sorted
        wanted = _hashes(docids)
        places = hashes.searchsorted(wanted)
        rows = np.full(len(docids), -1)
        left = np.arange(len(docids))
        # More than one round only where different docids have the same hash.
        while len(left):
            left = left[places[left] < len(hashes)]
            left = left[hashes[places[left]] == wanted[left]]
            found = order[places[left]]
            same = np.fromiter(
                (self[f] == docids[n] for f, n in zip(found, left, strict=True)),
                bool,
                len(left),
            )
            rows[left[same]] = found[same]
            left = left[~same]
            places[left] += 1
        return rows

    def row(self, docid: str) -> int:
        """The row of a docid.

        Raises:
            KeyError: there is no such docid.
        """
        row = self._find(docid)
        if row is None:
            raise KeyError(docid)
        return row

    def __contains__(self, docid: object) -> bool:
        return isinstance(docid, str) and self._find(docid) is not None

    def _find(self, docid: str) -> int | None:
        """:meth:`rows` of one docid, in a tenth of the time."""
        hashes, order = self._sorted
        (wanted,) = _hashes([docid])
        place = int(hashes.searchsorted(wanted))
        while place < len(hashes) and hashes[place] == wanted:
            if self[order[place]] == docid:
                return int(order[place])
            place += 1
        return None

    def again(self) -> int | None:
        """The first row whose docid an earlier row has; None: all are different."""
        hashes, order = self._sorted
        same = np.flatnonzero(hashes[1:] == hashes[:-1])
        rows = sorted(order[same + 1].tolist())
        return next((row for row in rows if self.row(self[row]) < row), None)


class Tokens(Sequence[np.ndarray]):
    """A column of token ids: one row a text, special tokens included."""

    def __init__(self, pieces: Sequence[pa.Array]) -> None:
        """Take pieces of ``pa.large_list(uint16 or uint32)``."""
        self._pieces = [
            (piece.offsets.to_numpy(), piece.values.to_numpy()) for piece in pieces
        ]
        # [N] int64, tokens of each text.
        self.lengths = np.concatenate([np.diff(offsets) for offsets, _ in self._pieces])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> np.ndarray:
        piece, place = divmod(row, ROWS)
        offsets, values = self._pieces[piece]
        return values[offsets[place] : offsets[place + 1]]


def cut(items: Iterable) -> Iterator[list]:
    """Lists of :data:`ROWS` items, the last one shorter."""
    items = iter(items)
    while part := list(islice(items, ROWS)):
        yield part


def write(
    path: str | Path, schema: pa.Schema, pieces: Iterable[Sequence[Sequence]]
) -> None:
    """Write a file of columns.

    Args:
        path: to write.
        schema: names and types of the columns.
        pieces: for each piece of rows (:func:`cut`), its columns.
    """
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        for columns in pieces:
            arrays = [
                pa.array(column, kind)
                for column, kind in zip(columns, schema.types, strict=True)
            ]
            file.write_batch(pa.record_batch(arrays, schema=schema))


def read(path: str | Path) -> dict[str, list[pa.Array]]:
    """Name to pieces of every column of a file; it is read where they are."""
    with pa.memory_map(str(path)) as source:
        found = pa.ipc.open_file(source).read_all()
    return {name: found[name].chunks for name in found.column_names}


def _hashes(texts: Iterable[str]) -> np.ndarray:
    return np.fromiter(map(hash, texts), np.int64)
