"""Which of some texts a text nearly equals, without comparing it with all of them.

A text is the set of its sequences of five words, or of all its words where it has fewer;
two are nearly equal where the sets' Jaccard similarity is 0.8 or more. The search is
exact. Two such sets share one of those sequences that come first in each of them, in any
fixed order of all, where first means the first n - ceil(0.8 n) + 1 of n (prefix
filtering). In the order from the rarest, few texts share one.

Cost: memory is linear in the words of the texts that are searched, 64 bytes each; time
is linear in the words of those that are searched with, 1 to 2 µs each, but for texts that
share even what is rarest in them: of a form that is filled in k times, each is compared
with each.

Source: Chaudhuri et al., ICDE 2006, and Bayardo et al., WWW 2007 (prefix filtering).
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from dense_hn.collections.collection import normalised

WORDS = 5
SIMILAR = Fraction(4, 5)


def sequences(text: str) -> set[tuple[str, ...]]:
    """The set that stands for a text."""
    words = normalised(text).split()
    if len(words) < WORDS:
        return {tuple(words)}
    return set(zip(*(words[start:] for start in range(WORDS)), strict=False))


class NearDuplicates:
    """Finds the texts that a text nearly equals."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Take the texts that are searched; they are kept."""
        self._texts = texts
        hashed = [_hashed(sequences(text)) for text in texts]
        sizes = np.array([len(one) for one in hashed])
        # Sequences, sorted by hash, and which place each has in the order from the rarest.
        self._known, which, counts = np.unique(
            np.concatenate(hashed), return_inverse=True, return_counts=True
        )
        self._place = np.empty(len(counts), np.int64)
        self._place[counts.argsort()] = np.arange(len(counts))
        places = self._place[which]
        rows = np.repeat(np.arange(len(texts)), sizes)
        places = places[np.lexsort((places, rows))]
        nth = np.arange(len(rows)) - np.repeat(sizes.cumsum() - sizes, sizes)
        first = nth < np.array([_first(size) for size in sizes.tolist()])[rows]
        # The first ones' places, sorted, and the texts they are of.
        places, rows = places[first], rows[first]
        order = places.argsort(kind="stable")
        self._places, self._rows = places[order], rows[order]

    def of(self, text: str) -> Iterator[tuple[int, float]]:
        """(row, similarity) of the texts that ``text`` nearly equals, by row."""
        ours = sequences(text)
        for row in self._candidates(_hashed(ours)):
            theirs = sequences(self._texts[row])
            shared = len(ours & theirs)
            similar = Fraction(shared, len(ours) + len(theirs) - shared)
            if similar >= SIMILAR:
                yield row, float(similar)

    def _candidates(self, hashes: np.ndarray) -> list[int]:
        at = self._known.searchsorted(hashes)
        at[at == len(self._known)] = 0
        places = np.sort(self._place[at[self._known[at] == hashes]])
        # What none of the texts has is rarer than anything, and comes first.
        unknown = len(hashes) - len(places)
        places = places[: max(0, _first(len(hashes)) - unknown)]
        starts = self._places.searchsorted(places)
        ends = self._places.searchsorted(places, side="right")
        found = (self._rows[s:e] for s, e in zip(starts, ends, strict=True))
        return sorted({row for rows in found for row in rows.tolist()})


def _first(size: int) -> int:
    """How many of a set's members come first."""
    return size - math.ceil(SIMILAR * size) + 1


def _hashed(members: set[tuple[str, ...]]) -> np.ndarray:
    return np.fromiter(map(hash, members), np.int64, len(members))
