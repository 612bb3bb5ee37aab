"""What a model is known by: the digest of all that its outcome depends on."""

import hashlib

from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from dense_hn.tokenizer import as_text

# What changes vectors in a model's config, besides the shapes of its weights.
SHAPING = ("hidden_act", "layer_norm_eps", "num_attention_heads", "pad_token_id")
# The same, of models that have it: ModernBERT's and its like.
SHAPING_TOO = (
    *("hidden_activation", "norm_eps", "local_attention", "global_attn_every_n_layers"),
    *("rope_parameters", "global_rope_theta", "local_rope_theta"),
)


def digest_of(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, settings: object
) -> str:
    """SHA-256 of weights, what of the config changes the outcome, tokenizer, settings."""
    state = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        state.update(name.encode())
        state.update(weight.detach().cpu().contiguous().numpy())
    state.update(as_text(tokenizer))
    state.update(repr(shape_of(model.config)).encode())
    state.update(repr(settings).encode())
    return state.hexdigest()


def shape_of(config: PreTrainedConfig) -> list[object]:
    """What of a model's config changes the outcome, besides the shapes of its weights."""
    shape = [getattr(config, name, None) for name in SHAPING]
    return shape + [(n, getattr(config, n)) for n in SHAPING_TOO if hasattr(config, n)]
