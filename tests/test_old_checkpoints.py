"""Checkpoints of ANCE and DRhard (the authors' STAR and ADORE), as they were saved."""

import json
import shutil
from math import erf, sqrt

import numpy as np
import pytest
import torch
from slow_tokenizer import SlowTokenizer
from transformers import RobertaTokenizer

from dense_hn import DenseHNError, encoder
from dense_hn.encode import encode_corpus, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.export import __main__ as export
from dense_hn.index import read_index
from dense_hn.search_command import search_command
from dense_hn.train import arguments, commands

TEXTS = ["the red lamp", "The RED Lamp ", "Café <MASK> lamp  <s>\tIt's OLD", "", "  x"]
TEXTS += ["Where is a Lamp , Red " * 40]

pytestmark = pytest.mark.parametrize("name", ["RobertaDot_NLL_LN", "RobertaDot"])


@pytest.fixture
def folder(name, old_checkpoint):
    """A folder with weights, config and tokenizer files of that class."""
    return old_checkpoint(name)


def slow_vector(state, ids):
    """One text's vector in float64 NumPy, by the definition of RoBERTa (one layer)."""

    def linear(x, key):
        return x @ state[f"{key}.weight"].T + state[f"{key}.bias"]

    def norm(x, key):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * state[f"{key}.weight"] + state[f"{key}.bias"]

    layer = "roberta.encoder.layer.0."
    words, positions, types = (
        state[f"roberta.embeddings.{kind}_embeddings.weight"]
        for kind in ("word", "position", "token_type")
    )
    # Positions start behind padding's, which is 1.
    x = words[ids] + positions[2 : 2 + len(ids)] + types[0]
    x = norm(x, "roberta.embeddings.LayerNorm")
    query, key, value = (
        linear(x, f"{layer}attention.self.{part}") for part in ("query", "key", "value")
    )
    context = []
    for head in (slice(0, 8), slice(8, 16)):
        weights = np.exp(query[:, head] @ key[:, head].T / sqrt(8))
        context.append(weights @ value[:, head] / weights.sum(1, keepdims=True))
    context = linear(np.hstack(context), layer + "attention.output.dense")
    x = norm(x + context, layer + "attention.output.LayerNorm")
    inner = linear(x, layer + "intermediate.dense")
    inner = inner / 2 * (1 + np.vectorize(erf)(inner / sqrt(2)))
    x = norm(x + linear(inner, layer + "output.dense"), layer + "output.LayerNorm")
    return norm(linear(x[0], "embeddingHead"), "norm")


def test_it_loads_without_settings_and_encodes_as_it_was_trained(folder):
    encoder = DenseEncoder.load(str(folder))
    assert encoder.settings.architecture == "ance"
    assert encoder.settings.tokenization == "transformers-2"
    parts = encoder.modules()
    assert not any(getattr(part, "gradient_checkpointing", False) for part in parts)
    state = torch.load(folder / "pytorch_model.bin")
    state = {key: value.double().numpy() for key, value in state.items()}
    slow = SlowTokenizer(folder)
    for kind, length in (("query", 64), ("passage", 256)):
        expected = [slow_vector(state, slow(text, length)) for text in TEXTS]
        vectors = encode_texts(encoder, TEXTS, kind).numpy()
        np.testing.assert_allclose(vectors, expected, atol=2e-5)
    today = DenseEncoder.load(str(folder), tokenization="own")
    assert today.digest() != encoder.digest()
    others = encode_texts(today, TEXTS[:3], "passage").numpy()
    assert abs(others - vectors[:3]).max(axis=1).min() > 1e-2


def test_saved_it_is_the_same(folder, tmp_path):
    encoder = DenseEncoder.load(str(folder))
    encoder.save(tmp_path / "saved")
    again = DenseEncoder.load(str(tmp_path / "saved"))
    assert again.settings == encoder.settings
    assert again.digest() == encoder.digest()
    vectors = encode_texts(encoder, TEXTS, "passage")
    torch.testing.assert_close(encode_texts(again, TEXTS, "passage"), vectors)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (config["model_type"], config["pad_token_id"]) == ("roberta", 1)
    tokens = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert (tokens["add_prefix_space"], tokens["model_max_length"]) == (True, 64)
    rebuilt = RobertaTokenizer.from_pretrained(tmp_path / "saved")
    slow = SlowTokenizer(folder)
    assert rebuilt("where is a lamp")["input_ids"] == slow("where is a lamp", 64)


def test_star_and_adore_train_it(folder, files, tmp_path, corpus):
    common = {"topics": files["topics"], "qrels": files["qrels"], "max_steps": 2}
    common |= {"per_device_train_batch_size": 8, "disable_tqdm": True, "use_cpu": True}
    argv = {"encoder": folder, "corpus": files["corpus"], "negatives": files["run"]}
    argv |= {"output_dir": tmp_path / "star"}
    commands.train("star", arguments.argv_of(argv | common))
    star = DenseEncoder.load(str(tmp_path / "star"))
    assert star.settings == DenseEncoder.load(str(folder)).settings
    assert star.digest() != DenseEncoder.load(str(folder)).digest()
    encode_corpus(star, corpus, tmp_path / "vectors")
    argv = {"encoder": tmp_path / "star", "vectors": tmp_path / "vectors"}
    argv |= {"output_dir": tmp_path / "adore", "adore_hits": 10}
    commands.train("adore", arguments.argv_of(argv | common))
    adore = DenseEncoder.load(str(tmp_path / "adore"))
    assert adore.settings.tokenization == "transformers-2"
    assert adore.settings.passage_encoder == star.digest()
    slow = SlowTokenizer(folder)
    tokens = adore.tokenize(TEXTS[1:2], "query")
    assert tokens == [slow(TEXTS[1], 64)]


def test_adore_says_whose_passages_it_searches(folder, tmp_path, corpus, monkeypatch):
    """As training.md has it for the authors' two checkpoints."""

    ance = tmp_path / "ance"

    def saved(source, output, *more):
        words = ["--source", source, "--output", ance / output, *more]
        monkeypatch.setattr("sys.argv", ["encoder", *map(str, words)])
        encoder.main()
        return DenseEncoder.load(str(ance / output))

    star = saved(folder, "star")
    vectors = encode_corpus(star, corpus, tmp_path / "vectors")
    moved = DenseEncoder.load(str(folder))
    next(moved.parameters()).data.add_(0.1)
    moved.save(tmp_path / "moved")
    with pytest.raises(DenseHNError, match="made by another encoder than alone"):
        vectors.require_made_by(saved(tmp_path / "moved", "alone"), "alone")
    adore = saved(tmp_path / "moved", "adore", "--passages", ance / "star")
    vectors.require_made_by(adore, "adore")
    words = ["--vectors", tmp_path / "vectors", "--encoder", ance / "adore"]
    words += ["--output", tmp_path / "index"]
    monkeypatch.setattr("sys.argv", ["export", *map(str, words)])
    export.main()
    assert read_index(tmp_path / "index").encoder == star.digest()


def test_the_search_command_wants_it_saved_first(folder, tmp_path):
    """In the folder as it is, nothing tells Pyserini of the tokenization."""
    shutil.copytree(folder, tmp_path / "ance")
    settings = DenseEncoder.load(str(folder)).settings
    paths = "index", "t.tsv", "run.txt"
    with pytest.raises(DenseHNError, match="dense_hn.encoder --source .*/ance "):
        search_command(settings, tmp_path / "ance", *paths)
    DenseEncoder.load(str(folder)).save(tmp_path / "ance" / "saved")
    command = search_command(settings, tmp_path / "ance" / "saved", *paths)
    assert command[:4] == [
        "--encoder-class",
        "ance",
        "--encoder",
        f"{tmp_path}/ance/saved",
    ]


def test_padding_that_pyserini_would_take_for_text_is_refused(folder, tmp_path):
    """A config of another class that names another padding token is not ANCE's."""
    shutil.copytree(folder, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config |= {"architectures": ["RobertaDot_Rand"], "pad_token_id": 0}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(DenseHNError, match="padding is token 0, the tokenizer that it"):
        DenseEncoder.load(str(tmp_path / "other"))
