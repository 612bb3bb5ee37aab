"""Where collections come from, by the names that recipes and command lines use.

A source is named ``KIND:VALUE``, as in ``beir:path/to/scifact``, or, in a recipe,
``collection: {KIND: VALUE}``.
"""

from pathlib import Path
from typing import Any

import yaml

from dense_hn import DenseHNError
from dense_hn.collections import beir, collection, dpr, files, ir, passages, pydoc
from dense_hn.collections.collection import DEV, TRAIN, Collection
from dense_hn.names import require_known, unknown

# Each has read(value), which gives the collection as its source has it, digests(value),
# which changes when that changes, and splits(value): {split: whether it is judged}.
KINDS = {"beir": beir, "dpr": dpr, "files": files, "ir_datasets": ir, "pydoc": pydoc}
# A collection folder, which is taken as it is.
FOLDER = "folder"
# Another source's documents, cut: dense_hn.collections.passages.
PASSAGES = "passages"
# All that a source may be named by.
NAMES = (*KINDS, FOLDER, PASSAGES)


def parse(spec: str) -> tuple[str, Any]:
    """``KIND:VALUE`` to the two; the value is read as YAML.

    Raises:
        DenseHNError: no such kind, no value, broken YAML.
    """
    kind, _, text = spec.partition(":")
    if kind not in NAMES:
        raise DenseHNError(f"{spec}: {unknown('kind of collection', kind, NAMES)}")
    try:
        value = yaml.safe_load(text)
    # A date that there is not is a ValueError.
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DenseHNError(f"{spec}: broken YAML: {reason}") from None
    if not value:
        raise DenseHNError(f"{spec}: expected {kind}:VALUE")
    return kind, settled(kind, value)


def settled(kind: str, value: Any) -> Any:
    """What YAML made of a source's value, with words where it saw numbers or dates.

    Raises:
        DenseHNError: a folder that is no word.
    """
    if kind == FOLDER and not isinstance(value, str):
        raise DenseHNError(f"{kind}: expected a path, got {value!r}; quote it")
    if kind == PASSAGES:
        of, documents, words, overlap = passages.parse(value)
        require_known([of], KINDS, "passages: of", "source")
        return {"of": {of: settled(of, documents)}, "words": words, "overlap": overlap}
    if isinstance(value, dict):
        return {str(name): named for name, named in value.items()}
    return value


def read(kind: str, value: Any) -> Collection:
    """A collection with everything that its source holds."""
    if kind == PASSAGES:
        of, documents, words, overlap = passages.parse(value)
        return passages.cut(read(of, documents), words, overlap)
    return collection.read(value) if kind == FOLDER else KINDS[kind].read(value)


def digests(kind: str, value: Any) -> list[str]:
    """What :func:`build` depends on."""
    kind, value = _uncut(kind, value)
    return KINDS[kind].digests(value)


def splits(kind: str, value: Any) -> dict[str, bool]:
    """Split to whether it is judged: of what :func:`build` makes, or of a folder."""
    if kind == FOLDER:
        return collection.splits(value)
    kind, value = _uncut(kind, value)
    there = KINDS[kind].splits(value)
    if there.get(TRAIN) and DEV not in there:
        there[DEV] = True
    return there


def _uncut(kind: str, value: Any) -> tuple[str, Any]:
    """The source of the documents, where they are cut."""
    return passages.parse(value)[:2] if kind == PASSAGES else (kind, value)


def build(kind: str, value: Any, folder: str | Path) -> None:
    """Write the usable part of a source as a collection folder, and log what it is.

    Args:
        kind: one of ``NAMES``.
        value: as the kind's ``read`` takes it.
        folder: to write; see dense_hn.collections.collection.

    Raises:
        DenseHNError: what the kind's ``read`` and ``collection.prepare`` raise.
    """
    made = read(kind, value)
    collection.prepare(made)
    collection.write(made, folder)
    collection.tell(made, kind)
