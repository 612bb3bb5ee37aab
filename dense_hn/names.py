"""What to say about a name that a person wrote and that stands for nothing."""

import difflib
from collections.abc import Iterable

from dense_hn import DenseHNError

LISTED = 20


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say ``unknown WHAT 'name'``, and which name was meant or which there are.

    Args:
        what: the kind of thing that is named: setting, section, …
        name: as written.
        known: the names there are; of many, the first 20 are listed.
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        hint = f"did you mean {close[0]!r}?"
    else:
        more = ", …" if len(known) > LISTED else ""
        hint = f"there are {', '.join(known[:LISTED])}{more}"
    return f"unknown {what} {name!r}; {hint}"


def require_known(
    names: Iterable[object], known: Iterable[str], where: str, what: str
) -> None:
    """Check that every name is one of ``known``; ``where`` and :func:`unknown`'s ``what`` are
    for the message.

    Raises:
        DenseHNError: names the first that is not.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise DenseHNError(f"{where}: {unknown(what, str(name), known)}")
