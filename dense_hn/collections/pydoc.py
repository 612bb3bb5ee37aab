"""The built-in collection `pydoc`: natural language to Python function.

    python -m dense_hn.collections.pydoc --output pydoc/ [--packages stdlib numpy …]

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

import argparse
import ast
import hashlib
import importlib.util
import logging
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dense_hn import DenseHNError, cli, trec
from dense_hn.collections.jsonl import Corpus, write_corpus
from dense_hn.files import digest, whole_folder

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


def build(folder: str | Path, packages: Sequence[str] = (STDLIB,)) -> None:
    """Write the collection into ``folder``.

    It gets ``corpus/corpus.jsonl`` (Pyserini's JsonCollection), ``topics.SPLIT.tsv`` and
    ``qrels.SPLIT.txt`` for train, dev and test. The split is by a hash of the query, so
    it does not change when other packages are added.

    Args:
        folder: where the collection goes.
        packages: names of installed top-level packages or modules, or ``stdlib``.

    Raises:
        DenseHNError: a package that is not installed or has no source, or too few
            functions for every split to have a topic.
    """
    corpus: Corpus = {}
    answers: dict[str, list[Function]] = {}
    seen: set[tuple[str, str]] = set()
    copies = short = 0
    for function in tqdm(
        _functions(packages), desc="Reading sources", unit=" functions"
    ):
        if len(function.query.split()) < SHORTEST:
            short += 1
        elif (function.query, function.code) in seen or function.name in corpus:
            copies += 1
        else:
            seen.add((function.query, function.code))
            corpus[function.name] = f"{words(function.name)}\n{function.code}"
            answers.setdefault(function.query.casefold(), []).append(function)
    topics: dict[str, trec.Topics] = {split: {} for split in SPLITS}
    qrels: dict[str, trec.Qrels] = {split: {} for split in SPLITS}
    for text, functions in answers.items():
        if len(functions) == 1:
            hashed = hashlib.sha256(text.encode()).hexdigest()
            split, qid = _split(int(hashed, 16) % 100), f"q{hashed[:12]}"
            topics[split][qid] = functions[0].query
            qrels[split][qid] = {functions[0].name: 1}
    empty = [split for split in SPLITS if not topics[split]]
    if empty:
        raise DenseHNError(
            f"pydoc: {len(corpus)} functions in {' '.join(packages)} leave no topic for "
            f"{empty[0]}; name more packages"
        )
    with whole_folder(folder, "corpus/corpus.jsonl") as partial:
        write_corpus(partial / "corpus" / "corpus.jsonl", corpus)
        for split in SPLITS:
            trec.write_topics(partial / f"topics.{split}.tsv", topics[split])
            trec.write_qrels(partial / f"qrels.{split}.txt", qrels[split])
    log.info(
        "pydoc: %d functions; %s; left out: %d with a first sentence under %d words, %d "
        "copies and redefinitions; %d sentences stand for several functions: no topics",
        len(corpus),
        ", ".join(f"{len(topics[split])} {split} topics" for split in SPLITS),
        short,
        SHORTEST,
        copies,
        sum(len(functions) > 1 for functions in answers.values()),
    )


def sources_digest(packages: Sequence[str]) -> str:
    """SHA-256 over the source files that :func:`build` would read."""
    modules = [module for package in packages for module in _modules(package)]
    digests = [f"{name} {digest(path)}\n" for name, path in modules]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


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


def main() -> None:
    """Build the collection from the command line."""
    parser = argparse.ArgumentParser(
        prog="dense_hn.collections.pydoc",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument(
        "--packages", nargs="+", default=[STDLIB], help="packages (default: stdlib)"
    )
    args = parser.parse_args()
    build(args.output, args.packages)


if __name__ == "__main__":
    cli.run(main)
