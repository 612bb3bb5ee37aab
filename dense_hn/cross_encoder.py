"""CrossEncoder: one number for a query and a passage that are read together.

Any checkpoint of transformers' AutoModelForSequenceClassification with one label, whose
logit is the score, or with two (not relevant, relevant), whose score is the second logit
less the first: the log-odds of relevance. What `python -m dense_hn.train cross` writes
is such a folder; sentence-transformers' CrossEncoder opens it, too, and gives the same
logits.

Source: Nogueira and Cho, arXiv 1901.04085.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dense_hn import DenseHNError, __version__, costs, provenance
from dense_hn.files import whole_folder
from dense_hn.model_digest import digest_of
from dense_hn.pretrained import loading, locate, positions_of
from dense_hn.slices import sliced
from dense_hn.tokenizer import load_tokenizer, reset

WHAT = "a cross-encoder"
# By which a folder of ours is known, and may be replaced: what wrote it.
FILE = "cross_encoder.json"
# How the classes are called that a checkpoint with a head was saved as.
HEAD = "ForSequenceClassification"
# Tokens that no model takes, and transformers' number where a tokenizer does not say.
UNTOLD = 2**30
# For sentence-transformers, which else gives one over one plus e to the minus logit.
ACTIVATION = {"activation_fn": "torch.nn.modules.linear.Identity"}


class CrossEncoder:
    """Pairs of texts to scores."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
    ) -> None:
        """Take a model of one or two labels.

        Args:
            model: of transformers, with a head for sequences.
            tokenizer: the model's.
            length: longest pair, in tokens, special tokens included; of a longer one the
                longer text is cut first.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = "right"
        self.length = length
        # As DenseEncoder's.
        self.gradient_cache = 0

    @classmethod
    def load(
        cls, source: str, length: int | None = None, *, seed: int | None = None
    ) -> "CrossEncoder":
        """Load a folder, a hub name, or ``package:NAME/FOLDER``, to a GPU if there is one.

        Args:
            source: as DenseEncoder.load's.
            length: longest pair in tokens, if not what the tokenizer says, or the model
                where it takes less; with a new head, what the model takes.
            seed: of the new head, of one label, that a checkpoint without one gets, to
                be trained; None: such a checkpoint is refused.

        Raises:
            DenseHNError: no such model, no head, a head of other than one or two labels,
                a length that the model does not take.
        """
        config = _config(source)
        headless = not _has_head(config)
        if headless and seed is not None:
            config.num_labels = 1
        else:
            _require(source, config)
        with loading(source, WHAT):
            tokenizer = load_tokenizer(locate(source), config, "own")
            with torch.random.fork_rng():
                torch.manual_seed(seed or 0)
                model, report = AutoModelForSequenceClassification.from_pretrained(
                    locate(source),
                    config=config,
                    dtype=torch.float32,
                    output_loading_info=True,
                )
        if report["missing_keys"] and not headless:
            raise DenseHNError(
                f"{source}: the checkpoint lacks {min(report['missing_keys'])}, "
                "without which its scores are random; take a whole one"
            )
        most = positions_of(config)
        if length is not None and (length < 5 or length > (most or length)):
            raise DenseHNError(
                f"{source}: takes pairs of 5 to {most or 'any number of'} tokens, "
                f"{length} asked for"
            )
        # An encoder's tokenizer may speak of queries alone.
        told = UNTOLD if headless else tokenizer.model_max_length
        length = length or min(told, most or UNTOLD)
        if length >= UNTOLD:
            raise DenseHNError(
                f"{source}: does not say how many tokens it takes; give --length"
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.to(device), tokenizer, length)

    def batch(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """What :meth:`forward` takes, of pairs (query, passage), made on the host.

        See dense_hn.slices.sliced.
        """
        queries, passages = map(list, zip(*pairs, strict=True))
        tokens = self.tokenizer(
            queries,
            passages,
            max_length=self.length,
            truncation=True,
            return_attention_mask=False,
        )
        padding = {
            "input_ids": self.tokenizer.pad_token_id,
            "token_type_ids": self.tokenizer.pad_token_type_id,
        }
        columns = {name: tokens[name] for name in padding if name in tokens}
        cached = torch.is_grad_enabled() and self.gradient_cache
        return sliced(columns, padding, self.model.device, cached)

    def forward(
        self,
        slices: Sequence[Mapping[str, Tensor]],
        places: Tensor,
        model: nn.Module | None = None,
    ) -> Tensor:
        """Scores [N], float32, of pairs as :meth:`batch` gives them, in their order.

        Args:
            slices: on the model's device.
            places: where each pair is in them.
            model: what the model is wrapped in, if it is. With ``gradient_cache``, a
                slice's activations are made again in the backward pass.
        """
        score = partial(_scores, model or self.model)
        if self.gradient_cache and torch.is_grad_enabled():
            score = partial(checkpoint, score, use_reentrant=False)
        scores = []
        for one in slices:
            costs.count(one["attention_mask"])
            scores.append(score(one))
        return torch.cat(scores)[places]

    def digest(self) -> str:
        """SHA-256 of weights, config, tokenizer and length: the same scores, the same digest."""
        return digest_of(self.model, self.tokenizer, self.length)

    def save(self, folder: str | Path) -> None:
        """Write a folder that transformers and sentence-transformers load as it is."""
        with whole_folder(folder, FILE, also="*") as partial_folder:
            self.model.config.sentence_transformers = ACTIVATION
            self.model.save_pretrained(partial_folder)
            reset(self.tokenizer)
            self.tokenizer.model_max_length = self.length
            self.tokenizer.save_pretrained(partial_folder)
            facts = {"dense_hn": __version__, "command": provenance.command()}
            text = json.dumps(facts, indent=2)
            (partial_folder / FILE).write_text(f"{text}\n", encoding="utf-8")


def require(source: str) -> None:
    """Check what config.json says, before anything is loaded.

    Args:
        source: as CrossEncoder.load's.

    Raises:
        DenseHNError: no such model, no head, a head of other than one or two labels.
    """
    _require(source, _config(source))


def _require(source: str, config: PreTrainedConfig) -> None:
    if not _has_head(config):
        raise DenseHNError(
            f"{source}: is no cross-encoder (config.json names no …{HEAD}); make one of it "
            "with `python -m dense_hn.train cross`"
        )
    if config.num_labels not in (1, 2):
        raise DenseHNError(
            f"{source}: has {config.num_labels} labels; a cross-encoder has one, or two: "
            "not relevant, relevant"
        )


def _config(source: str) -> PreTrainedConfig:
    with loading(source, WHAT):
        return AutoConfig.from_pretrained(locate(source))


def _has_head(config: PreTrainedConfig) -> bool:
    return any(HEAD in name for name in config.architectures or [])


def _scores(model: nn.Module, one: Mapping[str, Tensor]) -> Tensor:
    """[b] of a slice."""
    logits = model(**one).logits.float()
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
