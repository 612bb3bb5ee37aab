r"""A checkpoint's tokenizer: its own, or as transformers 2.x would have run it.

ANCE, STAR and ADORE were trained on the tokens of transformers 2.x's RobertaTokenizer
with ``do_lower_case=True``, which later versions no longer give:

1. a text that does not start with white space gets one blank before it;
2. it is lower-cased, character by character, and then split at the special tokens, so
   that ``<MASK>`` is one, too;
3. white space before a special token and at the end goes, that after one stays; a
   piece with nothing left gives no tokens;
4. byte-level BPE of every piece, then ``<s>`` … ``</s>`` around what fits the length.

White space is what Python's ``str.isspace`` says.

Source: ``tokenize`` and ``prepare_for_tokenization`` of transformers 2.8.0
(tokenization_utils.py, tokenization_roberta.py), which DRhard's preprocess.py calls.
"""

import re

from tokenizers import AddedToken, Regex, Tokenizer, normalizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from dense_hn import DenseHNError

TOKENIZATIONS = ("own", "transformers-2")
# A regular expression's \s lacks four separators that str.isspace has.
_SPACE = r"[\s\x1c-\x1f]"


def load_tokenizer(
    path: str, config: PreTrainedConfig, tokenization: str
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder or hub name.

    Args:
        path: folder or hub name.
        config: the model's, whose class tells the tokenizer's where no file does.
        tokenization: one of ``TOKENIZATIONS``.

    Raises:
        DenseHNError: ``transformers-2`` for a tokenizer that is no byte-level BPE, or
            whose special tokens lower-casing would change.
        OSError, ValueError: transformers cannot load it.
    """
    tokenizer = AutoTokenizer.from_pretrained(path, config=config)
    return tokenizer if tokenization == "own" else transformers_2(tokenizer)


def transformers_2(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """The same vocabulary and special tokens with the behaviour of transformers 2.x.

    What makes it so is all in ``tokenizer.json``, for clients that read it whole (as
    AutoTokenizer does). Those that rebuild a RobertaTokenizer of the vocabulary honour
    ``add_prefix_space`` in ``tokenizer_config.json``: the same for a text in lower case
    without special tokens and without white space around it.

    Raises:
        DenseHNError: as :func:`load_tokenizer`.
    """
    own = tokenizer.backend_tokenizer
    added = [str(token) for _, token in sorted(own.get_added_tokens_decoder().items())]
    if not isinstance(own.model, BPE) or not isinstance(own.pre_tokenizer, ByteLevel):
        raise DenseHNError(
            f"{tokenizer.name_or_path}: tokenization is 'transformers-2', but this is no "
            "byte-level BPE tokenizer, as RoBERTa's is; leave it at own"
        )
    for token in added:
        if token != token.lower():
            raise DenseHNError(
                f"{tokenizer.name_or_path}: tokenization is 'transformers-2', which "
                f"lower-cases texts before it looks for special tokens, and {token!r} "
                "is one; leave it at own"
            )
    special = "|".join(map(re.escape, added))
    old = Tokenizer(own.model)
    # The first alternative takes white space before a special token and at the end; its
    # look-behind keeps the time linear in a run of white space. The second takes the
    # blank back that a text with white space before it got. The special tokens are
    # normalised as texts are, and come out as they are.
    space = rf"(?<!{_SPACE}){_SPACE}+(?=\z|{special})|\A (?={_SPACE})"
    old.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Prepend(" "),
            normalizers.Replace(Regex(space), ""),
        ]
    )
    old.pre_tokenizer = ByteLevel(add_prefix_space=False)
    old.post_processor = own.post_processor
    old.decoder = own.decoder
    # normalized: they are looked for in the normalised text.
    old.add_special_tokens([AddedToken(t, normalized=True) for t in added])
    return PreTrainedTokenizerFast(
        tokenizer_object=old,
        name_or_path=tokenizer.name_or_path,
        model_max_length=tokenizer.model_max_length,
        add_prefix_space=True,
        **tokenizer.special_tokens_map,
    )


def reset(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let it forget the truncation and padding of the last call, which are its state."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()


def as_text(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """What a tokenizer is, and the side on which it cuts, where that is not the right one."""
    reset(tokenizer)
    side = tokenizer.truncation_side
    own = tokenizer.backend_tokenizer.to_str()
    return (own if side == "right" else f"{side} {own}").encode()
