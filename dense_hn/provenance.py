"""What an output was made from, in a JSON file beside it.

`runs/star.train.txt` has `runs/star.train.txt.json`: digests of everything that its
content depends on, the output's own, and the command that wrote it. An output is known
by those digests, never by its name, so that one made from other weights is made anew.
"""

import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dense_hn import DenseHNError, __version__, costs
from dense_hn.files import digest, whole_file
from dense_hn.reading import read_object

log = logging.getLogger("dense_hn")


def record(
    output: str | Path,
    made_from: Mapping[str, Any],
    spent: Mapping[str, Any],
    **more: Any,
) -> None:
    """Write what ``output`` was made from beside it, and what it took, and say that.

    Args:
        output: a file that is whole.
        made_from: digests and settings, as JSON.
        spent: costs.Costs.facts.
        more: what is in these digests, in words.
    """
    facts = {
        **more,
        "made_from": dict(made_from),
        "sha256": digest(output),
        "dense_hn": __version__,
        "command": command(),
        "costs": dict(spent),
    }
    log.info("%s: %s", output, costs.in_words(spent))
    with whole_file(_beside(output)) as partial:
        partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def is_made_from(output: str | Path, made_from: Mapping[str, Any]) -> bool:
    """Whether ``output`` is there, unchanged, and made from this by this version."""
    if not Path(output).is_file():
        return False
    facts = _facts(output)
    wanted = {"made_from": dict(made_from), "dense_hn": __version__}
    same = all(facts.get(name) == value for name, value in wanted.items())
    # Last, since it reads all of the output.
    return same and facts.get("sha256") == digest(output)


def tell_of_another_corpus(
    paths: Sequence[str], corpus: str, where: str | Path
) -> None:
    """Warn of runs whose record says that they are of another corpus.

    Their docids may be the same: one with titles, or cut in another way.

    Args:
        paths: runs, with or without a record beside them.
        corpus: digest of the corpus that they are used with.
        where: it is, for the message.
    """
    for path in paths:
        facts = _facts(path)
        made_from = facts.get("made_from")
        theirs = made_from.get("corpus") if isinstance(made_from, dict) else None
        # A record may be of what stood there before; the digest last, which takes a while.
        if theirs and theirs != corpus and facts.get("sha256") == digest(path):
            log.warning(
                "%s: made from another corpus than %s, by what is in %s",
                *(path, where, _beside(path)),
            )


def record_folder(folder: str | Path, made_from: Mapping[str, Any]) -> None:
    """Write what an encoder folder was made from, and the command, to NAME.made_from.json.

    Args:
        folder: whose neighbour the file becomes.
        made_from: digests and settings, as JSON.
    """
    folder = Path(folder)
    told = {"command": command(), "made_from": dict(made_from)}
    with whole_file(folder.with_name(f"{folder.name}.made_from.json")) as partial:
        partial.write_text(f"{json.dumps(told, indent=2)}\n", encoding="utf-8")


def command() -> str:
    """The command line of this process, as it is typed."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if module is None:
        return shlex.join(["python", *sys.argv])
    name = module.name.removesuffix(".__main__")
    return shlex.join(["python", "-m", name, *sys.argv[1:]])


def _facts(output: str | Path) -> dict[str, Any]:
    """What the record beside an output says; nothing where there is none of ours."""
    try:
        return read_object(_beside(output), "record")
    except DenseHNError:
        return {}


def _beside(output: str | Path) -> Path:
    return Path(f"{output}.json")
