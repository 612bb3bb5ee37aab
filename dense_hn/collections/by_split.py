"""The value of a source that names a file, or files, for each split.

``{corpus: PATH, SPLIT: …, …}``, with splits of any name: train, dev, test, …
"""

import re
from collections.abc import Iterable
from typing import Any

from dense_hn import DenseHNError

CORPUS = "corpus"


def parse(value: Any, kind: str, form: str) -> tuple[str, dict[str, Any]]:
    """The corpus and what is named for each split.

    Args:
        value: from a recipe or a command line.
        kind: of the source, for messages.
        form: what such a value looks like, for messages.

    Raises:
        DenseHNError: no mapping, no corpus, no split, or as :func:`require_names`.
    """
    if not isinstance(value, dict) or len(value) < 2 or not value.get(CORPUS):
        raise DenseHNError(f"{kind}: expected {form}, got {value!r}")
    splits = {str(name): named for name, named in value.items() if name != CORPUS}
    require_names(splits, kind)
    return str(value[CORPUS]), splits


def require_names(splits: Iterable[str], kind: str) -> None:
    """Refuse a split that files cannot be named after; ``kind`` of source, for messages."""
    for name in splits:
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise DenseHNError(
                f"{kind}: files are named after the split {name!r}; use letters, digits, "
                "_, - and ."
            )
