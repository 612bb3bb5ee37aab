"""A recipe: the whole path, from a corpus to scored runs, described in YAML.

``collection`` names its source (``beir: FOLDER``; python -m dense_hn.collections --help
lists them), ``bm25``, ``evaluate`` and ``rerank`` take the fields of their classes below,
``encoder`` those of EncoderSettings and ``source``. Every other section is a training
stage, in the order of the file. Its name is the stage's, and it takes

* ``method``: warmup, star, adore or dynamic; default: the name of the section;
* ``from``: what it starts from, ``base`` (the encoder as it comes) or an earlier stage;
  default: the stage before it;
* ``negatives``, and ``teacher`` where the method has one: the systems (bm25, base,
  earlier stages), run files, or ``collection:NAME`` for a run that the collection brings,
  whose hits of the training topics it reads; where the method needs negatives and none
  are given, those of its ``from``;
* what `python -m dense_hn.train METHOD` takes, TrainingArguments' flags included,
  but for the other files, which the recipe itself fills in.
"""

import logging
import re
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from dense_hn import DenseHNError, bm25, rerank
from dense_hn.collections import sources
from dense_hn.evaluate import measures
from dense_hn.names import require_known, unknown
from dense_hn.reading import open_text
from dense_hn.train import arguments, commands

log = logging.getLogger("dense_hn")

# No splits to evaluate: what is trained on, and what the ledger calls other stages
# of a system by.
NOT_EVALUATED = ("train", "encode", "export", "index")
# Names that runs, rows of the table and the ledger have for other things; runs made
# with Pyserini are called pyserini-….
TAKEN = ("base", "bm25", "cards", "curves", "table", "topics", "untrained")
# Sections that are no stages of training, but that the ledger has stages of.
SECTIONS = ("collection", "evaluate", "rerank")


@dataclass(frozen=True, slots=True)
class CollectionSection:
    """Which collection: one source; see dense_hn.collections.sources."""

    kind: str
    value: Any


@dataclass(kw_only=True, slots=True)
class Bm25Section:
    """Lucene's BM25."""

    k1: float = bm25.K1
    b: float = bm25.B

    def __post_init__(self) -> None:
        bm25.require_settings(self.k1, self.b)


@dataclass(kw_only=True, slots=True)
class EvaluateSection:
    """What goes into the table."""

    # Any split of the collection that is judged, but train.
    topics: str = "test"
    hits: int = 1000
    measures: list[str] = field(default_factory=lambda: list(measures.DEFAULT))
    # Whether the encoder as it comes is a row; it encodes the whole corpus for that.
    untrained: bool = True

    def __post_init__(self) -> None:
        if self.topics in NOT_EVALUATED:
            raise DenseHNError(
                f"evaluate: topics is {self.topics!r}; give dev, test or another split "
                f"of the collection, but none of {', '.join(NOT_EVALUATED)}"
            )
        if self.hits < 1:
            raise DenseHNError(f"evaluate: hits is {self.hits}; it starts at 1")
        for measure in self.measures:
            cut = measures.parse(measure).cut
            if cut is not None and cut > self.hits:
                log.warning(
                    "evaluate: hits is %d, and %s looks at %d: it is of the first %d",
                    *(self.hits, measure, cut, self.hits),
                )


@dataclass(kw_only=True, slots=True)
class RerankSection:
    """Systems whose first hits a cross-encoder re-ranks, each a row of the table more."""

    # Folder or hub name of the cross-encoder; without one, nothing is re-ranked.
    model: str | None = None
    # Of the table; none named: all of them.
    systems: list[str] = field(default_factory=list)
    depths: list[int] = field(default_factory=lambda: [100])

    def __post_init__(self) -> None:
        rerank.require_depths(self.depths)
        if not self.depths:
            raise DenseHNError("rerank: depths is empty; name one, such as 100")
        if not self.model and (self.systems or self.depths != [100]):
            raise DenseHNError("rerank: model is missing: a cross-encoder")


@dataclass(kw_only=True, slots=True)
class TrainingSection:
    """A training stage."""

    name: str
    # One of commands.STAGES.
    method: str
    # "base", or the name of an earlier stage.
    source: str
    # The rest of the section.
    settings: dict[str, Any]


@dataclass(kw_only=True, slots=True)
class Recipe:
    """A recipe as read; plain dictionaries are checked by the room that takes them."""

    name: str
    collection: CollectionSection
    encoder: dict[str, Any]
    bm25: Bm25Section
    evaluate: EvaluateSection
    rerank: RerankSection
    # Training stages in the order of the file.
    stages: list[TrainingSection]


def read(recipe: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        recipe: a YAML file, or the name of one under integrations/pyserini.
        changes: ``section.key=value`` each, replacing settings.

    Raises:
        DenseHNError: no such recipe, broken YAML, an unknown section, key or method, a
            stage that starts from none before it or whose name cannot be one.
    """
    path = _find(recipe)
    with open_text(path, "recipe") as file:
        sections = _yaml(file.read(), str(path))
    fixed = {field.name: field.type for field in fields(Recipe)}
    del fixed["name"], fixed["stages"]
    if not isinstance(sections, dict):
        raise DenseHNError(
            f"{path}: expected the sections {', '.join(fixed)} and training stages"
        )
    for change in changes:
        name, equals, value = change.partition("=")
        section, dot, key = name.partition(".")
        if not equals or not dot:
            raise DenseHNError(f"--set {change}: expected SECTION.KEY=VALUE")
        if section not in {**fixed, **sections}:
            known = dict.fromkeys([*fixed, *map(str, sections)])
            raise DenseHNError(f"--set {change}: {unknown('section', section, known)}")
        # Not in place: a YAML alias makes one mapping of two sections.
        settings = _mapping(sections.get(section) or {}, section)
        sections[section] = {**settings, key: _yaml(value, f"--set {change}")}
    stages: list[TrainingSection] = []
    for name in [name for name in sections if name not in fixed]:
        settings = _mapping(sections[name] or {}, name)
        if name not in commands.STAGES and "method" not in settings:
            known = [*fixed, *commands.STAGES]
            raise DenseHNError(
                f"{path}: {unknown('section', str(name), known)}; a training stage "
                "under a name of its own needs `method:`"
            )
        stages.append(_training(name, settings, [stage.name for stage in stages]))
    values = {
        name: _section(kind, _mapping(sections.get(name) or {}, name), name)
        for name, kind in fixed.items()
    }
    return Recipe(name=path.stem, stages=stages, **values)


def as_yaml(recipe: Recipe) -> str:
    """A recipe's file: what :func:`read` made it from, with changes and defaults filled in."""
    sections = {
        "collection": {recipe.collection.kind: recipe.collection.value},
        "encoder": recipe.encoder,
        "bm25": asdict(recipe.bm25),
        "evaluate": asdict(recipe.evaluate),
    }
    if recipe.rerank.model:
        sections["rerank"] = asdict(recipe.rerank)
    for stage in recipe.stages:
        given = {"method": stage.method, "from": stage.source}
        sections[stage.name] = given | stage.settings
    return yaml.dump(sections, Dumper=_Plain, sort_keys=False, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """Without anchors, where sections share a value."""

    def ignore_aliases(self, data: object) -> bool:
        """Always."""
        return True


def _training(
    name: object, settings: dict[str, Any], earlier: Sequence[str]
) -> TrainingSection:
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]*", name, re.ASCII):
        raise DenseHNError(
            f"{name}: files are named after a training stage; use letters, digits, "
            "_ and -"
        )
    if name.lower() in TAKEN or name.startswith("pyserini-"):
        raise DenseHNError(f"{name}: this name is taken; give the stage another")
    sources = ["base", *earlier]
    method = str(settings.get("method", name))
    source = str(settings.get("from", sources[-1]))
    if method not in commands.STAGES:
        raise DenseHNError(f"{name}: {unknown('method', method, commands.STAGES)}")
    if source not in sources:
        raise DenseHNError(f"{name}: from: {unknown('earlier stage', source, sources)}")
    rest = {k: v for k, v in settings.items() if k not in ("method", "from")}
    return TrainingSection(name=name, method=method, source=source, settings=rest)


def _mapping(section: object, name: str) -> dict[str, Any]:
    if not isinstance(section, dict):
        raise DenseHNError(f"{name}: expected `key: value` lines")
    return section


def _section(kind: type, settings: dict[str, Any], name: str) -> Any:
    if kind is CollectionSection:
        return _collection(settings)
    if is_dataclass(kind):
        return arguments.fill(name, kind, settings)
    return settings


def _collection(settings: dict[str, Any]) -> CollectionSection:
    require_known(settings, sources.NAMES, "collection", "source")
    given = {key: value for key, value in settings.items() if value}
    if len(given) != 1:
        raise DenseHNError(f"collection: give one of {', '.join(sources.NAMES)}")
    ((kind, value),) = given.items()
    return CollectionSection(kind, sources.settled(kind, value))


def _yaml(text: str, where: str) -> Any:
    try:
        _require_once(yaml.compose(text, yaml.SafeLoader), where)
        return yaml.safe_load(text)
    # A date that is none, and brackets in brackets.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DenseHNError(f"{where}: broken YAML: {reason}") from None


def _require_once(root: yaml.Node | None, where: str) -> None:
    """Refuse a section or setting given twice, of which YAML would keep the last."""
    if not isinstance(root, yaml.MappingNode):
        return
    for node in (root, *(section for _, section in root.value)):
        keys = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if str(key.value) in keys:
                line = key.start_mark.line + 1
                raise DenseHNError(
                    f"{where}:{line}: {key.value!r} for the second time; keep one"
                )
            keys.add(str(key.value))


def _find(recipe: str) -> Path:
    """A recipe's file: as given, or by name beside this checkout or as installed."""
    path, named = Path(recipe), recipe.endswith((".yaml", ".yml"))
    if named and path.is_file():
        return path
    folders = [
        Path(__file__).parents[2] / "integrations" / "pyserini",
        Path(sysconfig.get_path("data")) / "share" / "dense_hn" / "recipes",
    ]
    found = {path.stem: path for folder in folders for path in folder.glob("*.yaml")}
    if named:
        there = f", or leave out the ending of {path.stem}" * (path.stem in found)
        raise DenseHNError(f"{recipe}: no such recipe file; check the path{there}")
    if recipe not in found:
        raise DenseHNError(
            f"no recipe {recipe!r}: name a YAML file, or one of "
            f"{', '.join(sorted(found)) or '(none is installed)'}"
        )
    return found[recipe]
