"""Run files as the boards take them, checked line by line as they are.

Unlike trec.read_run this goes on after a problem, and keeps one topic's docids in memory
at a time, so that MS MARCO's dev run of 7 million lines can be checked anywhere.

A few things are stricter than the boards' own scripts, since they mean that a file was
put together wrongly: ranks go 1, 2, 3, … and a topic's lines stand together.
"""

import logging
import math
import re
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedIOBase
from typing import ClassVar

from tqdm import tqdm

from dense_hn.submit.boards import TrecDl
from dense_hn.submit.problems import Problems

log = logging.getLogger("dense_hn")

# A line and a decompressed file, in bytes: far above any run that a board takes.
LINE_SIZE = 1000
FILE_SIZE = 1 << 30

# What reading a compressed file or an archive's member raises when it is broken.
BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


@dataclass(kw_only=True)
class RunCheck(ABC):
    """Checks what all boards ask of a run; subclasses add their own format."""

    form: ClassVar[str]

    # File name in messages.
    name: str
    # Hits per topic, at most.
    most: int
    # The board's topics.
    topics: Mapping[str, str]
    # Of the corpus, or None where they are not known.
    docids: Container[str] | None
    # Where everything wrong is noted.
    problems: Problems

    # What was read: the line on which each topic's hits begin, how many lines there are,
    # and how many topics have as many hits as they may.
    first: dict[str, int] = field(default_factory=dict, init=False)
    lines: int = field(default=0, init=False)
    full: int = field(default=0, init=False)

    # Of the topic that is being read.
    _qid: str | None = field(default=None, init=False)
    _listed: int = field(default=0, init=False)
    _seen: set[str] = field(default_factory=set, init=False)
    # Which rank may come next; none where it cannot be known, as after an unreadable
    # line, and two after a wrong rank: one line is wrong, not the next.
    _ranks: tuple[int, ...] = field(default=(), init=False)
    # Whether the file was read to its end.
    _whole: bool = field(default=False, init=False)

    def read(self, file: BufferedIOBase) -> None:
        """Read the decompressed file to its end."""
        unreadable = False
        lines = self._lines(file)
        for line in tqdm(lines, desc=f"Checking {self.name}", unit=" lines"):
            columns = None if line is None else self._columns(line)
            if columns is not None:
                self._hit(columns, unreadable)
            elif line is not None:
                self._add("wrong columns", f"expected {self.form}, got {line[:80]!r}")
            unreadable = columns is None
        missing = [qid for qid in self.topics if qid not in self.first]
        if missing and self._whole and self.lines:
            self._missing(missing)

    def _lines(self, file: BufferedIOBase) -> Iterator[str | None]:
        """Yield texts, None where one is not UTF-8; ``lines`` counts them."""
        size = 0
        while True:
            try:
                line = file.readline(LINE_SIZE + 1)
            except BROKEN as error:
                self.lines += 1
                self._add("broken file", f"cannot be read from here on ({error})")
                return
            if not line:
                self._whole = True
                if self.lines == 0:
                    self.problems.add("empty file", self.name, "an empty file")
                return
            self.lines += 1
            size += len(line)
            if len(line) > LINE_SIZE or size > FILE_SIZE:
                self._add(
                    "too large",
                    f"a line of more than {LINE_SIZE} bytes, or more than {FILE_SIZE} "
                    "bytes in all; not read on",
                )
                return
            try:
                yield line.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                what = f"not UTF-8 ({error.reason} at byte {error.start})"
                self._add("not UTF-8", what)
                yield None

    @abstractmethod
    def _columns(self, line: str) -> list[str] | None:
        """The columns in the order qid, docid, rank, …; None if they are others."""

    @abstractmethod
    def _missing(self, qids: list[str]) -> None:
        """Tell of topics without a hit."""

    def _add(self, kind: str, what: str) -> None:
        self.problems.add(kind, f"{self.name}:{self.lines}", what)

    def _hit(self, columns: list[str], after_unreadable: bool) -> None:
        qid, docid, rank = columns[:3]
        if qid != self._qid:
            self._start(qid)
        if after_unreadable:
            self._ranks = ()
        self._listed += 1
        self.full += self._listed == self.most
        if self._listed == self.most + 1:
            self._add("too many hits", f"topic {qid!r} has more than {self.most} hits")
        if docid in self._seen:
            self._add("duplicate docid", f"{docid!r} again for topic {qid!r}")
        elif self._listed <= self.most:
            self._seen.add(docid)
        if self.docids is not None and docid not in self.docids:
            self._add("unknown docid", f"docid {docid!r} is not in the corpus")
        if not (rank.isascii() and rank.isdigit()):
            self._add("wrong rank", f"rank {rank!r} is not a whole number")
            self._ranks = ()
        else:
            place = int(rank)
            if self._ranks and place not in self._ranks:
                right = self._ranks[0]
                what = f"rank {rank} of topic {qid!r} where {right} comes next"
                self._add("wrong rank", what)
                self._ranks = (right + 1, place + 1)
            else:
                self._ranks = (place + 1,)

    def _start(self, qid: str) -> None:
        """Another topic's hits begin."""
        self._qid, self._listed, self._ranks = qid, 0, (1,)
        self._seen = set()
        if qid not in self.topics:
            self._add("unknown topic", f"topic {qid!r} is not among the topics")
        elif qid in self.first:
            what = f"topic {qid!r} again, after other topics; it began on line "
            self._add("topic not together", f"{what}{self.first[qid]}")
            self._ranks = ()
        else:
            self.first[qid] = self.lines


class MsMarcoCheck(RunCheck):
    """``qid<TAB>docid<TAB>rank``; missing topics and hits are only warned of.

    That is how the board's eval/run_eval.py takes them: topics without hits score 0.
    """

    form = "`qid<TAB>docid<TAB>rank`"

    def read(self, file: BufferedIOBase) -> None:
        """As in RunCheck, and warn of topics with fewer hits than the board takes."""
        super().read(file)
        if self.full < len(self.first):
            log.warning(
                "%s: %d of %d topics have fewer than %d hits",
                self.name,
                len(self.first) - self.full,
                len(self.first),
                self.most,
            )

    def _columns(self, line: str) -> list[str] | None:
        columns = line.split()
        # Joined again, white space other than two tabs shows.
        return columns if len(columns) == 3 and "\t".join(columns) == line else None

    def _missing(self, qids: list[str]) -> None:
        log.warning(
            "%s: %d of %d topics have no hit and score 0, such as %r",
            self.name,
            len(qids),
            len(self.topics),
            qids[0],
        )


@dataclass(kw_only=True)
class TrecCheck(RunCheck):
    """``qid Q0 docid rank score tag``; every topic needs a hit, as NIST's scripts ask."""

    form = "6 columns `qid Q0 docid rank score tag`"

    # The track's task.
    board: TrecDl
    # The run's tag, or None for whichever is on the first line.
    tag: str | None

    # The score of the line above.
    _above: float = field(default=math.inf, init=False)

    def _columns(self, line: str) -> list[str] | None:
        columns = line.split()
        if len(columns) != 6:
            return None
        qid, q0, docid, rank, score, tag = columns
        return [qid, docid, rank, score, tag, q0]

    def _start(self, qid: str) -> None:
        super()._start(qid)
        self._above = math.inf

    def _hit(self, columns: list[str], after_unreadable: bool) -> None:
        super()._hit(columns, after_unreadable)
        score, tag, q0 = columns[3:]
        if q0 != "Q0":
            self._add("wrong second column", f"second column {q0!r}, not 'Q0'")
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self._add("wrong score", f"score {score!r} is not a finite number")
        else:
            if value > self._above:
                what = f"score {score} is above the one before it, {self._above}"
                self._add("wrong score", what)
            self._above = value
        if self.tag is None:
            self.tag = tag
            wrong = wrong_tag(tag, self.board)
            if wrong:
                self._add("wrong tag", wrong)
        elif tag != self.tag:
            self._add("wrong tag", f"tag {tag!r} where {self.tag!r} is expected")

    def _missing(self, qids: list[str]) -> None:
        for qid in qids:
            self.problems.add("topic without hit", self.name, f"no hit for {qid!r}")


def wrong_tag(tag: str, board: TrecDl) -> str | None:
    """What is wrong with a run tag; None when nothing is."""
    if re.fullmatch(rf"[A-Za-z0-9_-]{{1,{board.tag_length}}}", tag):
        return None
    return f"tag {tag!r}: only 1 to {board.tag_length} letters, digits, '-' and '_'"
