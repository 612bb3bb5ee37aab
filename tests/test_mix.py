"""Mixtures of encoders against the mean of their files' weights, and what cannot be mixed."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer

from dense_hn import DenseHNError
from dense_hn import encode as encode_command
from dense_hn import encoder as encoder_command
from dense_hn import mix as mix_command
from dense_hn.encode import encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.encoder_settings import FILE
from dense_hn.mix import mix

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def trained(bert, tmp_path_factory):
    """Folders of two encoders, some way from bert each."""
    folders = []
    for seed in (1, 2):
        encoder = DenseEncoder.load(str(bert))
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in encoder.parameters():
                weight += 0.03 * torch.randn_like(weight)
        folders.append(str(tmp_path_factory.mktemp("trained") / "encoder"))
        encoder.save(folders[-1])
    return folders


def command(module, monkeypatch, *argv):
    """Run a command of ours as from the command line."""
    monkeypatch.setattr(sys, "argv", ["dense_hn", *map(str, argv)])
    module.main()


def test_a_mixture_has_the_mean_weights(bert, trained, tmp_path, monkeypatch):
    """By the files alone; and its vectors are those of transformers with these weights."""
    folders, shares = [str(bert), *trained], (1, 2, 5)
    flags = ["--weights", *shares, "--output", tmp_path / "mixed"]
    command(mix_command, monkeypatch, *folders, *flags)
    files = [load_file(f"{folder}/{WEIGHTS}") for folder in folders]
    found = load_file(tmp_path / "mixed" / WEIGHTS)
    assert found.keys() == files[0].keys()
    for name, weight in found.items():
        expected = sum(
            share / 8 * file[name].astype(np.float64)
            for share, file in zip(shares, files, strict=True)
        )
        np.testing.assert_allclose(weight, expected, rtol=1e-6, atol=1e-8)
        assert (weight != files[0][name]).any()
    text = "the words of a text"
    model = AutoModel.from_pretrained(tmp_path / "mixed").eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path / "mixed")(
        text, return_tensors="pt"
    )
    with torch.no_grad():
        mean = model(**tokens).last_hidden_state[0].mean(dim=0).numpy()
    encoder = DenseEncoder.load(str(tmp_path / "mixed"))
    np.testing.assert_allclose(
        encode_texts(encoder, [text], "passage")[0],
        mean / np.linalg.norm(mean),
        atol=1e-6,
    )
    settings = json.loads((bert / FILE).read_text())
    assert json.loads((tmp_path / "mixed" / FILE).read_text()) == settings
    told = json.loads((tmp_path / "mixed.made_from.json").read_text())["made_from"]
    assert told["weights"] == [*shares]
    digests = [DenseEncoder.load(folder).digest() for folder in folders]
    assert told["encoders"] == digests


def test_weights_count_by_their_shares(bert, trained):
    """And the same encoders give the same mixture."""
    folders = [str(bert), trained[0]]
    mixture = mix(folders, (3, 1)).digest()
    assert mixture == mix(folders, (0.75, 0.25)).digest()
    assert mixture != mix(folders, (1, 3)).digest()
    assert (
        mix([str(bert), str(bert)], (1, 3)).digest()
        == DenseEncoder.load(str(bert)).digest()
    )


def test_a_query_encoder_searches_the_mixture_that_is_named(
    bert, trained, tmp_path, monkeypatch
):
    star, moved = trained
    adore = str(tmp_path / "adore")
    flags = ["--source", moved, "--passages", star, "--output", adore]
    command(encoder_command, monkeypatch, *flags)
    with pytest.raises(
        DenseHNError, match=f"{adore}: was trained to search the passages"
    ):
        mix([str(bert), adore], (1, 1))
    mixed = str(tmp_path / "mixed")
    mix([str(bert), star], (1, 1)).save(mixed)
    queries = mix([str(bert), adore], (1, 1), mixed)
    assert queries.searches(DenseEncoder.load(mixed).digest())
    assert not queries.searches(DenseEncoder.load(star).digest())

    assert mix([star, moved], (1, 1)).settings.passage_encoder == ""
    # The passages of one that is mixed, or of another kind.
    assert mix([adore, star], (1, 1), star).searches(DenseEncoder.load(star).digest())
    other = another(bert, tmp_path / "cls", {"pooling": "cls"})
    with pytest.raises(DenseHNError, match=f"{other}: pooling is 'cls'"):
        mix([str(bert), adore], (1, 1), other)
    with pytest.raises(DenseHNError, match=f"{adore}: .* has none of its own"):
        mix([str(bert), adore], (1, 1), adore)


def another(bert, folder, settings=None, layers=None):
    """bert with other settings, or other weights of as many or fewer layers."""
    encoder = DenseEncoder.load(str(bert), **(settings or {}))
    if layers:
        config = encoder.model.config
        config.num_hidden_layers = layers
        torch.manual_seed(8)
        encoder.model = AutoModel.from_config(config)
    encoder.save(folder)
    return str(folder)


def test_what_cannot_be_mixed_is_refused(bert, tmp_path, monkeypatch):
    """Each by its own message; lengths and scale may differ, and are the first's."""
    refused = {
        "pooling": ({"pooling": "cls"}, None, "pooling is 'cls', and 'mean' in"),
        "prefix": ({"passage_prefix": "p:"}, None, "--passage_prefix"),
        "layers": (None, 1, "is a model of another shape"),
        "stranger": (None, 2, "weights differ from those of"),
    }
    for name, (settings, layers, message) in refused.items():
        folder = another(bert, tmp_path / name, settings, layers)
        with pytest.raises(DenseHNError, match=f"{folder}: .*{message}"):
            mix([str(bert), folder], (1, 1))
    vocabulary = DenseEncoder.load(str(bert))
    vocabulary.tokenizer.add_tokens(["new"])
    vocabulary.model.resize_token_embeddings(len(vocabulary.tokenizer))
    vocabulary.save(tmp_path / "vocabulary")
    with pytest.raises(DenseHNError, match="has another tokenizer"):
        mix([str(bert), str(tmp_path / "vocabulary")], (1, 1))
    own = {"query_length": 8, "passage_length": 9, "document_length": 10, "scale": 1}
    folder = another(bert, tmp_path / "lengths", own)
    found = mix([folder, str(bert)], (1, 1)).settings
    assert {name: getattr(found, name) for name in own} == own
    # One that does not say it, told of it.
    weighted = {"document_weight": 0.5, "document_length": 32}
    whole = another(bert, tmp_path / "whole", weighted)
    with pytest.raises(DenseHNError, match="document_weight is 0.5, and 0.0"):
        mix([str(bert), whole], (1, 1))
    found = mix([str(bert), whole], (1, 1), **weighted)
    assert found.settings.document_weight == 0.5
    for weights, message in (
        ((1,), "encoders: 2, weights: 1"),
        ((1, 0), "weights: 0; they must be above 0"),
        ((1, float("nan")), "weights: nan; they must"),
    ):
        with pytest.raises(DenseHNError, match=message):
            mix([str(bert), folder], weights)
    flags = ["--weights", 1, 1, "--output", folder]
    with pytest.raises(DenseHNError, match="would replace the encoder"):
        command(mix_command, monkeypatch, bert, folder, *flags)


def test_a_corpus_encoded_by_what_searches_anothers_passages_is_told_of(
    bert, trained, files, tmp_path, monkeypatch, caplog
):
    star, moved = trained
    adore = str(tmp_path / "adore")
    flags = ["--source", moved, "--passages", star, "--output", adore]
    command(encoder_command, monkeypatch, *flags)
    for name, told in ((star, False), (adore, True)):
        caplog.clear()
        flags = ["--encoder", name, "--corpus", files["corpus"]]
        flags += ["--output", tmp_path / "vectors" / str(told)]
        command(encode_command, monkeypatch, "corpus", *flags)
        said = any(
            line.startswith(f"{name}: was trained to search")
            for line in caplog.messages
        )
        assert said == told
