"""EncoderSettings: how texts become vectors, and what a checkpoint says of it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from dense_hn import DenseHNError
from dense_hn.names import unknown
from dense_hn.pretrained import OLD_CLASSES, loading, saved_as
from dense_hn.reading import parsed
from dense_hn.sentence_layout import sentence_settings
from dense_hn.tokenizer import TOKENIZATIONS

# The file of an encoder's folder that they are in.
FILE = "dense_hn.json"
# Its model card, for people; no part of what an encoder is.
CARD = "README.md"


@dataclass(kw_only=True, slots=True)
class EncoderSettings:
    """How texts become vectors; checked when made."""

    # "ance" or "auto", Pyserini's --encoder-class.
    architecture: str = "auto"
    # "cls" (first token) or "mean" (over the tokens that are no padding).
    pooling: str = "cls"
    # Whether vectors are scaled to length one.
    l2_norm: bool = False
    # Longest query, in tokens, special tokens included. Pyserini's ance has 64.
    query_length: int = 64
    # Longest passage, in tokens, special tokens included.
    passage_length: int = 256
    # Text put before every query (passage), followed by one blank; empty for none.
    query_prefix: str = ""
    passage_prefix: str = ""
    # Of a document's vector, where it is added to those of its passages (D#0, D#1, …), whose own
    # weight is 1; see dense_hn.document_vector.
    document_weight: float = 0.0
    # Longest document that is encoded for that, in tokens, special tokens included.
    document_length: int = 256
    # "own" (the checkpoint's tokenizer as it is) or "transformers-2" (lower-cased, with
    # a blank before it; see dense_hn.tokenizer). For byte-level BPE only.
    tokenization: str = "own"
    # Losses multiply dot products with this: one over the temperature. Vectors and
    # search scores are not scaled.
    scale: float = 1.0
    # Digest of the encoder that made the passages this one searches, where it is
    # another one (ADORE trains the query side alone); see DenseEncoder.digest.
    passage_encoder: str = ""

    def __post_init__(self) -> None:
        if self.architecture not in ("ance", "auto"):
            refuse("architecture", self.architecture, "ance or auto")
        if self.pooling not in ("cls", "mean"):
            refuse("pooling", self.pooling, "cls or mean")
        if self.tokenization not in TOKENIZATIONS:
            refuse("tokenization", self.tokenization, " or ".join(TOKENIZATIONS))
        if min(self.query_length, self.passage_length, self.document_length) < 3:
            raise DenseHNError(
                "encoder: query_length, passage_length and document_length start at 3"
            )
        if not 0 < self.scale < math.inf:
            refuse("scale", self.scale, "a number above 0")
        if not 0 <= self.document_weight < math.inf:
            refuse("document_weight", self.document_weight, "a number from 0 on")
        # A recipe's 1 and a command line's 1.0 are one encoder.
        self.document_weight = float(self.document_weight)
        if self.architecture == "ance":
            fixed = {"pooling": "cls", "l2_norm": False, "query_length": 64}
            fixed |= {"query_prefix": "", "passage_prefix": ""}
            for name, value in fixed.items():
                if getattr(self, name) != value:
                    refuse(name, getattr(self, name), f"{value!r} (ance has no other)")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "EncoderSettings":
        """Settings from a dictionary; refuses names that are none."""
        known = [field.name for field in fields(cls)]
        defaults = asdict(cls())
        for name, value in values.items():
            if name not in known:
                raise DenseHNError(f"encoder: {unknown('setting', name, known)}")
            wanted = type(defaults[name])
            if type(value) is not wanted and (wanted, type(value)) != (float, int):
                refuse(name, value, f"a value like {defaults[name]!r}")
        return cls(**values)

    @classmethod
    def saved(cls, source: str) -> dict[str, Any]:
        """What ``dense_hn.json`` of a folder or hub name says.

        Without one, what a checkpoint of ANCE or DRhard needs, or what a folder of
        sentence-transformers says; empty for others.

        Raises:
            DenseHNError: no such model; a sentence-transformers folder that does what
                we cannot.
        """
        with loading(source):
            path = cached_file(
                source, FILE, _raise_exceptions_for_missing_entries=False
            )
            if path:
                return parsed(Path(path).read_text(encoding="utf-8"), path)
            if saved_as(source) & set(OLD_CLASSES):
                return {"architecture": "ance", "tokenization": "transformers-2"}
            return sentence_settings(source)


def refuse(name: str, value: object, allowed: str) -> None:
    """Raise that a setting has a value that it cannot have, and which it can."""
    raise DenseHNError(f"encoder: {name} is {value!r}; it must be {allowed}")
