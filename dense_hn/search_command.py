"""The command line that searches an exported index, and paths that would change it.

Pyserini takes hints from words in the paths that it is given.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from dense_hn import DenseHNError
from dense_hn.encoder_settings import FILE, EncoderSettings

# The words that Pyserini looks for in an encoder's path, lower-cased, in its order, when
# --encoder-class is left out (pyserini.encode.query_encoder_class_map; importing it
# takes a JVM and seconds). With the class given, some still change pooling and length.
ENCODER_WORDS = (
    "dkrr",
    "cosdpr",
    "dpr",
    "bpr",
    "tct_colbert",
    "ance",
    "sentence",
    "contriever",
    "aggretriever",
    "openai-api",
    "auto",
    "clip",
    "arctic",
    "uniir",
    "qwen3",
    "dse",
    "mmeb",
)
# What Pyserini does when another path has a word in it.
WORDS = {
    "index": dict.fromkeys(
        ("bright-aops", "bright-leetcode", "bright-theoremqa-questions"),
        "downloads documents to leave out of the hits",
    ),
    "topics": {"cacm": "reads topics in another format"},
    "vector topics": dict.fromkeys(("beir", "cacm"), "reads topics in another format"),
    "encoded queries": {"bpr": "wants two vectors for every query"},
}
# Names of topics files, but for _ and the extension, whose order Pyserini believes to
# know (pyserini.query_iterator, PREDEFINED_ORDER); it fails on a file of that name.
ORDERED_TOPICS = (
    "msmarco-doc-dev",
    "msmarco-doc-test",
    "msmarco-passage-dev-subset",
    "msmarco-passage-test-subset",
)
# Classes of query encoders that are auto with this pooling, and normalised or not.
AUTO_BY_NAME = {"sentence": ("mean", True), "contriever": ("mean", False)}
# Words in an encoder's path with which Pyserini normalises whatever it is told.
NORMALISING = ("clip", "dse")


def require_plain(
    encoder: str | Path, index: str | Path, topics: str | Path, architecture: str
) -> None:
    """Refuse paths with which Pyserini would not search as we do.

    Args:
        encoder: query encoder's.
        index: exported index folder's.
        topics: topics file's.
        architecture: the encoder's.

    Raises:
        DenseHNError: as :func:`require_recognised` and :func:`require_harmless`.
    """
    require_recognised(encoder, architecture)
    require_harmless(index, "index")
    require_harmless(topics, "topics")


def require_recognised(encoder: str | Path, architecture: str) -> None:
    """Refuse an encoder's path that leads Pyserini to another class or pooling.

    An `auto` encoder's must have none of Pyserini's words, not even ``auto``, with
    which its pooling is lost. An `ance` encoder's must have ``ance`` before any other,
    or Pyserini, called without --encoder-class, drops its head and ends with status 0.

    Raises:
        DenseHNError: names the word.
    """
    word = next((w for w in ENCODER_WORDS if w in str(encoder).lower()), None)
    if architecture == "ance" and word is None:
        raise DenseHNError(
            f"{encoder}: Pyserini, called without --encoder-class, knows an ance encoder "
            "by 'ance' in its path, and would drop this one's head without a word; put "
            "it into a folder such as ance/star"
        )
    if word not in (None, architecture) or word == "auto":
        raise DenseHNError(
            f"{encoder}: Pyserini, called without --encoder-class, reads {word!r} in an "
            "encoder's path as its class, with that class's own pooling, and this one "
            f"is {architecture}; choose another name"
        )


def require_harmless(path: str | Path, kind: str) -> None:
    """Refuse another path that makes Pyserini do something else.

    Args:
        path: as it will be given to Pyserini.
        kind: one of ``WORDS``: index, topics, or encoded queries.

    Raises:
        DenseHNError: names the word in the path.
    """
    for word, does in WORDS[kind].items():
        if word in str(path):
            raise DenseHNError(
                f"{path}: Pyserini {does} when the path of {kind} has {word!r} in it; "
                "choose another name"
            )
    name = Path(path).stem.replace("_", "-")
    if kind == "topics" and name in ORDERED_TOPICS:
        raise DenseHNError(
            f"{path}: Pyserini takes a file of this name for its own {name} and fails; "
            "choose another name"
        )


def search_command(
    settings: EncoderSettings,
    encoder: str | Path,
    index: str | Path,
    topics: str | Path,
    output: str | Path,
    hits: int = 1000,
    max_passage: bool = False,
) -> list[str]:
    """Arguments of ``pyserini.search.faiss`` that search the index as we do.

    They are for `python -m dense_hn.pyserini search.faiss`, which `ance` encoders need.

    Raises:
        DenseHNError: a path that makes Pyserini encode queries, read topics or search
            in another way; an encoder with another tokenization than its files say.

    Args:
        settings: the query encoder's.
        encoder: its folder.
        index: exported index folder.
        topics: as trec.for_pyserini gives it.
        output: run file that Pyserini will write.
        hits: documents per topic.
        max_passage: whether passages are searched, and the run is of their documents.
    """
    require_plain(encoder, index, topics, settings.architecture)
    if settings.tokenization != "own" and not (Path(encoder) / FILE).is_file():
        raise DenseHNError(
            f"{encoder}: nothing in it tells Pyserini of the tokenization "
            f"{settings.tokenization}; run `python -m dense_hn.encoder --source {encoder} "
            "--output DIR` and name that folder"
        )
    flags = _flags(settings)
    command = [*flags[:2], "--encoder", str(encoder), *flags[2:]]
    command += ["--index", str(index), "--topics", str(topics), "--output", str(output)]
    command += ["--hits", str(hits)]
    return command + (
        ["--max-passage", "--max-passage-hits", str(hits)] if max_passage else []
    )


def _flags(told: EncoderSettings | argparse.Namespace) -> list[str]:
    """What Pyserini is told of how a query encoder makes vectors."""
    flags = ["--encoder-class", told.architecture]
    if told.architecture == "auto":
        flags += ["--pooling", told.pooling, *(["--l2-norm"] if told.l2_norm else [])]
    return flags + (["--query-prefix", told.query_prefix] if told.query_prefix else [])


def require_as_trained(arguments: Sequence[str]) -> tuple[Path, Path] | None:
    """Refuse a ``pyserini.search.faiss`` whose flags are not those of the encoder.

    Args:
        arguments: of that command.

    Returns:
        The folder of an encoder of ours that it searches with, and the index; None where it
        takes encoded queries, a name on the hub, or a folder without ``dense_hn.json``,
        which are left to Pyserini.

    Raises:
        DenseHNError: class, pooling, normalisation or prefix of the queries are others than
            the encoder was trained with, or its path changes them.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--index", type=Path, default=Path())
    parser.add_argument("--encoder-class", dest="architecture")
    # As Pyserini has them where they are left out.
    parser.add_argument("--pooling", default="cls")
    parser.add_argument("--l2-norm", action="store_true")
    parser.add_argument("--query-prefix")
    given, _ = parser.parse_known_args(arguments)
    if given.encoder is None or not (given.encoder / FILE).is_file():
        return None
    settings = EncoderSettings.of(EncoderSettings.saved(str(given.encoder)))
    if not given.architecture:
        require_recognised(given.encoder, settings.architecture)
        given.architecture = settings.architecture
    if given.architecture in AUTO_BY_NAME:
        given.pooling, given.l2_norm = AUTO_BY_NAME[given.architecture]
        given.architecture = "auto"
    if any(word in str(given.encoder).lower() for word in NORMALISING):
        given.l2_norm = True
    if _flags(given) != _flags(settings):
        raise DenseHNError(
            f"{given.encoder}: was trained as `{shlex.join(_flags(settings))}`, and Pyserini "
            f"would make other vectors, as `{shlex.join(_flags(given))}`; give the former, "
            f"and a path without {' or '.join(NORMALISING)}"
        )
    return given.encoder, given.index


def as_typed(verb: str, command: list[str]) -> str:
    """The line to type for the arguments of a Pyserini command, `search.faiss` or so."""
    return shlex.join(["python", "-m", "dense_hn.pyserini", verb, *command])
