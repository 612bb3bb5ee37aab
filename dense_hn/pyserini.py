"""Makes this process ready for Pyserini, and runs Pyserini's own command lines.

    python -m dense_hn.pyserini search.faiss --index DIR …

runs ``python -m pyserini.search.faiss`` with the same arguments, after

* finding Java, and starting it (dense_hn.java).
* mending `ance` encoders: Pyserini 1.6's AnceEncoder does not load under transformers
  5, which expects ``all_tied_weights_keys`` and an ``_init_weights`` that leaves loaded
  weights alone.
* giving `ance` encoders their tokenizer: RobertaTokenizer, which Pyserini asks for, is
  made of the vocabulary alone under transformers 5; AutoTokenizer reads the whole of a
  ``tokenizer.json`` whose tokenization is that of transformers 2.x (see
  dense_hn.tokenizer). Where an `ance` encoder loads without this runner, such a one is
  right for queries in lower case without special tokens only.

A search.faiss with an encoder of ours in another way than it was trained (class, pooling,
normalisation, prefix), or of an index that we know to be of another encoder's passages, is
refused: it would end with a run of wrong scores.

A name that begins with ``io.anserini.`` is one of Anserini's classes, for what Pyserini
has no module for; it is run with the same arguments, too.
"""

import importlib.util
import runpy
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace

from dense_hn import DenseHNError, cli
from dense_hn.java import start_jvm

_ENCODING = ("search.faiss", "search.hybrid", "encode")


def mend_ance() -> None:
    """Let Pyserini's ance load, and tokenise, under transformers 5 (see the module)."""
    from pyserini.encode import _ance
    from transformers import AutoTokenizer, PreTrainedModel, RobertaConfig

    # The config is given because it is known, and an old folder may not say so.
    load = partial(AutoTokenizer.from_pretrained, config=RobertaConfig())
    _ance.RobertaTokenizer = SimpleNamespace(from_pretrained=load)
    if not hasattr(_ance.AnceEncoder, "all_tied_weights_keys"):
        _ance.AnceEncoder.all_tied_weights_keys = {}
        _ance.AnceEncoder._init_weights = PreTrainedModel._init_weights


def main() -> None:
    """Run the Pyserini module named first with the arguments that follow it."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise DenseHNError(
            "which Pyserini command? e.g. `python -m dense_hn.pyserini search.faiss "
            "--index …`, for `python -m pyserini.search.faiss --index …`"
        )
    name = sys.argv[1].removeprefix("pyserini.")
    start_jvm()
    if name.startswith("io.anserini."):
        _java(name)(sys.argv[2:])
        return
    try:
        known = importlib.util.find_spec(f"pyserini.{name}") is not None
    except ModuleNotFoundError:
        known = False
    if not known:
        raise DenseHNError(f"pyserini has no module {name!r}; try search.faiss")
    if name.startswith(_ENCODING):
        mend_ance()
    if name == "search.faiss":
        _require_together(sys.argv[2:])
    sys.argv = [f"pyserini.{name}", *sys.argv[2:]]
    runpy.run_module(f"pyserini.{name}", run_name="__main__", alter_sys=True)


def _require_together(arguments: Sequence[str]) -> None:
    """Check that encoder, flags and index of a search belong together."""
    # Here, for other commands do without torch, which takes seconds.
    from dense_hn.export import manifest
    from dense_hn.search_command import require_as_trained

    searched = require_as_trained(arguments)
    if searched:
        encoder, index = searched
        manifest.require_searched_by(index, encoder)


def _java(name: str) -> Callable[[list[str]], None]:
    """The main method of a Java class."""
    from jnius import JavaException, autoclass

    try:
        return autoclass(name).main
    except JavaException:
        raise DenseHNError(f"Anserini has no class {name!r}; check it") from None


if __name__ == "__main__":
    cli.run(main)
