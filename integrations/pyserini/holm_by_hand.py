"""What tables should say of several tests together, for the tests of the tables."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def cells(p: Mapping[Key, float]) -> dict[Key, str]:
    """As tables print p after Holm's correction: ``p=.034``, or ``p<.001``.

    The smallest of n is multiplied by n, the next by n - 1, and none gets smaller than one
    before it.
    """
    found, so_far = {}, 0.0
    for rank, key in enumerate(sorted(p, key=p.__getitem__)):
        so_far = max(so_far, min(1.0, p[key] * (len(p) - rank)))
        said = f"={so_far:.3f}".replace("0.", ".") if so_far >= 0.001 else "<.001"
        found[key] = f"p{said}"
    return found
