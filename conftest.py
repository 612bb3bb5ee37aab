"""A collection and encoders small enough to train in a test, made here."""

from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    RobertaConfig,
    RobertaTokenizerFast,
)

from dense_hn import trec
from dense_hn.collections.jsonl import write_corpus
from dense_hn.encoder import AnceModel, DenseEncoder, EncoderSettings

COLOURS = ["red", "green", "blue", "black", "white", "amber"]
THINGS = ["lamp", "door", "chair", "clock", "river", "stone", "train", "apple"]


@pytest.fixture(scope="session")
def corpus() -> dict[str, str]:
    """48 passages of different lengths, one for each colour and thing."""
    return {
        f"{colour}-{thing}": f"the {colour} {thing} " + "is old and heavy " * (n % 5)
        for colour in COLOURS
        for n, thing in enumerate(THINGS)
    }


@pytest.fixture(scope="session")
def topics() -> dict[str, str]:
    """A query for each of 24 passages."""
    pairs = [(c, t) for c in COLOURS for t in THINGS[::2]]
    return {f"q{n}": f"where is a {t} , {c}" for n, (c, t) in enumerate(pairs)}


@pytest.fixture(scope="session")
def qrels(topics) -> dict[str, dict[str, int]]:
    """One relevant passage a query, and a second one for the first query."""
    qrels = {}
    for qid, text in topics.items():
        *_, thing, _, colour = text.split()
        qrels[qid] = {f"{colour}-{thing}": 1}
    qrels["q0"]["red-stone"] = 2
    return qrels


@pytest.fixture(scope="session")
def run(corpus, topics) -> dict[str, dict[str, float]]:
    """A run that lists 20 passages, relevant ones among them, for every query."""
    docids = sorted(corpus)
    return {
        qid: {docids[(7 * n + 5 * i) % len(docids)]: 20.0 - i for i in range(20)}
        for n, qid in enumerate(topics)
    }


@pytest.fixture
def files(tmp_path, corpus, topics, qrels, run) -> dict[str, Path]:
    """The collection above as files: corpus, topics, qrels, run."""
    paths = {
        "corpus": tmp_path / "corpus.jsonl",
        "topics": tmp_path / "topics.tsv",
        "qrels": tmp_path / "qrels.txt",
        "run": tmp_path / "run.txt",
    }
    write_corpus(paths["corpus"], corpus)
    trec.write_topics(paths["topics"], topics)
    trec.write_qrels(paths["qrels"], qrels)
    trec.write_run(paths["run"], run, "made")
    return paths


@pytest.fixture(scope="session")
def bert(tmp_path_factory, corpus, topics) -> Path:
    """Folder of a two-layer BERT encoder with mean pooling and L2 normalisation."""
    folder = tmp_path_factory.mktemp("bert")
    words = {w for text in [*corpus.values(), *topics.values()] for w in text.split()}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *sorted(words)]) + "\n")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    settings = EncoderSettings(
        pooling="mean", l2_norm=True, query_length=16, passage_length=32, scale=20
    )
    DenseEncoder(BertModel(config), tokenizer, settings).save(folder / "encoder")
    return folder / "encoder"


@pytest.fixture(scope="session")
def roberta(tmp_path_factory, corpus, topics) -> Path:
    """Folder of a one-layer encoder in the `ance` layout, byte-level BPE trained here."""
    folder = tmp_path_factory.mktemp("roberta")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        [*corpus.values(), *topics.values()],
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    )
    bpe.save_model(str(folder))
    tokenizer = RobertaTokenizerFast(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")
    )
    torch.manual_seed(7)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=130,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
    )
    settings = EncoderSettings(architecture="ance", passage_length=32)
    DenseEncoder(AnceModel(config), tokenizer, settings).save(folder / "encoder")
    return folder / "encoder"
