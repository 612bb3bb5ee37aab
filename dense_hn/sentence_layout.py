"""What a folder of sentence-transformers says about how it makes vectors.

``modules.json`` lists what a text goes through. We can do a Transformer, Pooling of the
first token or the mean, and Normalize; anything else is refused by name, because vectors
without it would be others than the model's. The prompts ``query`` and ``document`` (or
``passage``, ``corpus``) become prefixes; others are told of and not used. Lengths are not
read: the defaults are Pyserini's.
"""

import json
import logging
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import cached_file

from dense_hn import DenseHNError

log = logging.getLogger("dense_hn")

POOLINGS = {"cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean"}
# What the prompt of passages is called, the first that there is.
PASSAGE_PROMPTS = ("document", "passage", "corpus")


def sentence_settings(source: str) -> dict[str, Any]:
    """Fields of EncoderSettings that a folder or hub name in that layout has.

    Empty for one without ``modules.json``.

    Raises:
        DenseHNError: it does something that we cannot, or its prompts are no prefixes.
    """
    modules = _read(source, "modules.json")
    if modules is None:
        return {}
    path = {one["type"].rpartition(".")[2]: one["path"] for one in modules}
    order = list(path)
    if order not in (
        ["Transformer", "Pooling"],
        ["Transformer", "Pooling", "Normalize"],
    ):
        raise DenseHNError(
            f"{source}: modules.json says {', '.join(order)}; we can do Transformer, "
            "Pooling and Normalize, in this order; choose another model"
        )
    pooling = _read(source, f"{path['Pooling']}/config.json") or {}
    modes = pooling.get("pooling_mode") or [
        key.removeprefix("pooling_mode_")
        for key, value in pooling.items()
        if key.startswith("pooling_mode_") and value
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise DenseHNError(
            f"{source}: {path['Pooling']}/config.json says pooling by "
            f"{' and '.join(modes) or 'nothing'}; we can do cls or mean; choose another "
            "model"
        )
    if (_read(source, "sentence_bert_config.json") or {}).get("do_lower_case"):
        tokenize = AutoTokenizer.from_pretrained(source).tokenize
        if tokenize("A") != tokenize("a"):
            raise DenseHNError(
                f"{source}: sentence_bert_config.json says do_lower_case, which its "
                "tokenizer does not do, nor we or Pyserini; choose another model"
            )
    settings = {"pooling": POOLINGS[modes[0]], "l2_norm": "Normalize" in path}
    return settings | _prefixes(source, pooling.get("include_prompt", True))


def _prefixes(source: str, pooled: bool) -> dict[str, str]:
    said = _read(source, "config_sentence_transformers.json") or {}
    prompts = {name: text for name, text in (said.get("prompts") or {}).items() if text}
    named = {"query_prefix": ("query",), "passage_prefix": PASSAGE_PROMPTS}
    taken = {
        prefix: name
        for prefix, names in named.items()
        for name in [n for n in names if n in prompts][:1]
    }
    unused = prompts.keys() - taken.values()
    if unused:
        log.warning(
            "%s: prompts that are not used: %s; to use one, set query_prefix or "
            "passage_prefix with python -m dense_hn.encoder",
            source,
            ", ".join(sorted(unused)),
        )
    prefixes = {prefix: prompts[name] for prefix, name in taken.items()}
    for name, text in prefixes.items():
        # Theirs is put before a text as it is, ours with one blank between.
        if not text.strip() or not text.endswith(" ") or not pooled:
            raise DenseHNError(
                f"{source}: config_sentence_transformers.json says the prompt {text!r}, "
                f"and our {name} is text, is pooled, too, and ends with one blank; choose "
                "another model"
            )
    return {name: text[:-1] for name, text in prefixes.items()}


def _read(source: str, name: str) -> Any:
    """A JSON file of a folder or hub name, or None."""
    path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
    return path and json.loads(Path(path).read_text(encoding="utf-8"))
