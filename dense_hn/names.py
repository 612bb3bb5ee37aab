"""What to say about a name that a person wrote and that stands for nothing."""

import difflib
from collections.abc import Iterable

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
