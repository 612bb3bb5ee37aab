"""A recipe: the whole path, from a corpus to scored runs, described in YAML.

Its sections are the fields of :class:`Recipe`. ``encoder`` takes the fields of
EncoderSettings and ``source``; ``star`` and ``adore`` take what `python -m
dense_hn.train star|adore` takes, every TrainingArguments flag included, but for the
files, which the recipe itself fills in.
"""

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from dense_hn import DenseHNError, bm25, evaluate
from dense_hn.train import arguments

# Splits that can be evaluated; the third, train, is trained on.
EVALUATED = ("dev", "test")


@dataclass(kw_only=True, slots=True)
class CollectionSection:
    """Which collection: one of the two."""

    # Packages whose functions make the built-in collection.
    pydoc: list[str] = field(default_factory=list)
    # A folder in the built-in collection's layout: corpus/corpus.jsonl,
    # topics.SPLIT.tsv and qrels.SPLIT.txt for train and the evaluated split.
    folder: str = ""

    def __post_init__(self) -> None:
        if bool(self.pydoc) == bool(self.folder):
            raise DenseHNError("collection: give either pydoc or folder")


@dataclass(kw_only=True, slots=True)
class Bm25Section:
    """Lucene's BM25."""

    k1: float = bm25.K1
    b: float = bm25.B


@dataclass(kw_only=True, slots=True)
class EvaluateSection:
    """What goes into the table."""

    # dev or test.
    topics: str = "test"
    hits: int = 1000
    measures: list[str] = field(default_factory=lambda: list(evaluate.MEASURES))

    def __post_init__(self) -> None:
        if self.topics not in EVALUATED:
            raise DenseHNError(f"evaluate: topics is {self.topics!r}, not dev or test")
        if self.hits < 1:
            raise DenseHNError(f"evaluate: hits is {self.hits}; it starts at 1")
        for measure in self.measures:
            evaluate.parse(measure)


@dataclass(kw_only=True, slots=True)
class Recipe:
    """A recipe as read; plain dictionaries are checked by the room that takes them."""

    name: str
    collection: CollectionSection
    encoder: dict[str, Any]
    bm25: Bm25Section
    star: dict[str, Any]
    adore: dict[str, Any]
    evaluate: EvaluateSection


def read(recipe: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        recipe: a YAML file, or the name of one under integrations/pyserini.
        changes: ``section.key=value`` each, replacing settings.

    Raises:
        DenseHNError: no such recipe, broken YAML, an unknown section or key.
    """
    path = _find(recipe)
    sections = _yaml(path.read_text(encoding="utf-8"), str(path))
    known = {field.name: field.type for field in fields(Recipe)}
    del known["name"]
    if not isinstance(sections, dict):
        raise DenseHNError(f"{path}: expected the sections {', '.join(known)}")
    for change in changes:
        name, equals, value = change.partition("=")
        section, dot, key = name.partition(".")
        if not equals or not dot or section not in known:
            raise DenseHNError(
                f"--set {change}: expected SECTION.KEY=VALUE with a section of "
                f"{', '.join(known)}"
            )
        sections[section] = sections.get(section) or {}
        _mapping(sections[section], section)[key] = _yaml(value, f"--set {change}")
    for section in sections:
        if section not in known:
            raise DenseHNError(
                f"{path}: unknown section {section!r}; there are {', '.join(known)}"
            )
    values = {
        name: _section(kind, _mapping(sections.get(name) or {}, name), name)
        for name, kind in known.items()
    }
    return Recipe(name=path.stem, **values)


def _mapping(section: object, name: str) -> dict[str, Any]:
    if not isinstance(section, dict):
        raise DenseHNError(f"{name}: expected `key: value` lines")
    return section


def _section(kind: type, settings: dict[str, Any], name: str) -> Any:
    if is_dataclass(kind):
        return arguments.fill(name, kind, settings)
    return settings


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise DenseHNError(f"{where}: broken YAML: {reason}") from None


def _find(recipe: str) -> Path:
    """A recipe's file: as given, or by name beside this checkout or as installed."""
    if recipe.endswith((".yaml", ".yml")):
        path = Path(recipe)
        if path.is_file():
            return path
        raise DenseHNError(f"{recipe}: no such recipe file; check the path")
    folders = [
        Path(__file__).parents[2] / "integrations" / "pyserini",
        Path(sysconfig.get_path("data")) / "share" / "dense_hn" / "recipes",
    ]
    found = {path.stem: path for folder in folders for path in folder.glob("*.yaml")}
    if recipe not in found:
        raise DenseHNError(
            f"no recipe {recipe!r}: name a YAML file, or one of "
            f"{', '.join(sorted(found)) or '(none is installed)'}"
        )
    return found[recipe]
