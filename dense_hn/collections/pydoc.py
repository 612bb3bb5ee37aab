"""The built-in collection `pydoc`: natural language to Python function.

Made from source files on this machine, read with `ast` and never imported:

* passage: the function's dotted name (as words, without which BM25 finds little: it
  takes ``json.JSONDecoder.raw_decode`` for one word), signature and body, without the
  docstring;
* query: the first sentence of the docstring;
* relevant: the one function that the docstring belongs to.

A function whose docstring does not start with a sentence of three words or more is left
out; copies of a function (same sentence, same code) are one passage, and of two
definitions of one name the first is kept; a sentence that stands for several different
functions has no single answer and is no topic, but its functions stay in the corpus.
How many of each is printed.

The standard library is taken without its tests and without what some distributions
leave out or newer versions dropped (see OPTIONAL), so that it is much the same on every
Python 3.11.
"""

import ast
import hashlib
import importlib.util
import logging
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dense_hn import DenseHNError, trec
from dense_hn.collections.collection import Collection
from dense_hn.files import digest

log = logging.getLogger("dense_hn")

STDLIB = "stdlib"
OPTIONAL = {
    *("distutils", "ensurepip", "idlelib", "lib2to3", "tkinter"),
    *("turtle", "turtledemo"),
}
TESTS = {"test", "tests", "idle_test", "_test"}
# Shares of the topics, in hundredths of the hash space.
SPLITS = {"train": 65, "dev": 10, "test": 25}
SHORTEST = 3


@dataclass(frozen=True, slots=True)
class Function:
    """A documented function: its dotted name, the query, and the passage's code."""

    name: str
    query: str
    code: str


def read(packages: str | Sequence[str] = STDLIB) -> Collection:
    """Make the collection, with splits train, dev and test.

    The split is by a hash of the query, so it does not change when other packages are
    added.

    Args:
        packages: names of installed top-level packages or modules, or ``stdlib``.

    Raises:
        DenseHNError: a package that is not installed or has no source, or too few
            functions for every split to have a topic.
    """
    corpus: dict[str, str] = {}
    answers: dict[str, list[Function]] = {}
    seen: set[tuple[str, str]] = set()
    left_out: Counter[str] = Counter()
    for function in tqdm(
        _functions(_named(packages)), desc="Reading sources", unit=" functions"
    ):
        if len(function.query.split()) < SHORTEST:
            left_out[f"functions with a first sentence under {SHORTEST} words"] += 1
        elif (function.query, function.code) in seen or function.name in corpus:
            left_out["copies and redefinitions"] += 1
        else:
            seen.add((function.query, function.code))
            corpus[function.name] = f"{words(function.name)}\n{function.code}"
            answers.setdefault(function.query.casefold(), []).append(function)
    topics: dict[str, trec.Topics] = {split: {} for split in SPLITS}
    qrels: dict[str, trec.Qrels] = {split: {} for split in SPLITS}
    for text, functions in answers.items():
        if len(functions) > 1:
            left_out["topics that stand for several functions"] += 1
            continue
        hashed = hashlib.sha256(text.encode()).hexdigest()
        split, qid = _split(int(hashed, 16) % 100), f"q{hashed[:12]}"
        topics[split][qid] = functions[0].query
        qrels[split][qid] = {functions[0].name: 1}
    empty = [split for split in SPLITS if not topics[split]]
    if empty:
        raise DenseHNError(
            f"pydoc: {len(corpus)} functions in {' '.join(_named(packages))} leave no "
            f"topic for {empty[0]}; name more packages"
        )
    return Collection(corpus=corpus, topics=topics, qrels=qrels, left_out=left_out)


def splits(packages: str | Sequence[str] = STDLIB) -> dict[str, bool]:
    """Split to whether it is judged, which it always is, whatever the packages."""
    return dict.fromkeys(SPLITS, True)


def digests(packages: str | Sequence[str] = STDLIB) -> list[str]:
    """This Python's version, and a digest of the source files that would be read."""
    modules = [module for package in _named(packages) for module in _modules(package)]
    files = [f"{name} {digest(path)}\n" for name, path in modules]
    return [sys.version, hashlib.sha256("".join(files).encode()).hexdigest()]


def _named(packages: str | Sequence[str]) -> list[str]:
    return [packages] if isinstance(packages, str) else list(packages)


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring's first paragraph, on one line."""
    paragraph = re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0]
    return re.split(r"(?<=[.!?])\s", " ".join(paragraph.split()), maxsplit=1)[0]


def words(name: str) -> str:
    """A dotted name as words: ``json.JSONDecoder.raw_decode``, json JSON Decoder raw …"""
    humps = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
    return " ".join(re.sub(humps, " ", re.sub(r"[\W_]+", " ", name)).split())


def _split(hundredth: int) -> str:
    for split, share in SPLITS.items():
        if hundredth < share:
            return split
        hundredth -= share
    raise AssertionError("the shares add up to 100")


def _functions(packages: Sequence[str]) -> Iterator[Function]:
    for package in packages:
        for module, path in _modules(package):
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError) as error:
                log.warning("%s: left out, does not parse: %s", path, error)
                continue
            yield from _defined(tree, module)


def _modules(package: str) -> list[tuple[str, Path]]:
    """Dotted names and files of a package's modules, tests left out, sorted."""
    if package == STDLIB:
        root = Path(sysconfig.get_path("stdlib"))
        files = [
            p
            for p in root.rglob("*.py")
            if p.relative_to(root).parts[0] != "site-packages"
        ]
        left_out = TESTS | OPTIONAL
    else:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.has_location or not spec.origin.endswith(".py"):
            raise DenseHNError(
                f"pydoc: no Python source of a package {package!r} is installed here; "
                "check the name, or `pip install` it"
            )
        origin = Path(spec.origin)
        folders = spec.submodule_search_locations
        root = (Path(folders[0]) if folders else origin).parent
        files = list(Path(folders[0]).rglob("*.py")) if folders else [origin]
        left_out = TESTS
    modules = []
    for path in files:
        parts = path.relative_to(root).with_suffix("").parts
        if left_out.isdisjoint(parts):
            modules.append((".".join(parts).removesuffix(".__init__"), path))
    return sorted(modules)


def _defined(node: ast.AST, prefix: str) -> Iterator[Function]:
    """Documented functions of a module, of its classes, and under if, try and with."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(child)
            if docstring:
                child.body = child.body[1:] or [ast.Pass()]
                name = f"{prefix}.{child.name}"
                yield Function(name, first_sentence(docstring), ast.unparse(child))
        elif isinstance(child, ast.ClassDef):
            yield from _defined(child, f"{prefix}.{child.name}")
        elif isinstance(child, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            yield from _defined(child, prefix)
