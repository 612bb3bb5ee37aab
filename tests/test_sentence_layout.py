"""Folders that sentence-transformers saved, against its own encode()."""

import json
import shutil

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoModel, AutoTokenizer

from dense_hn import DenseHNError
from dense_hn.encode import encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.encoder_settings import EncoderSettings


@pytest.fixture
def saved(bert, tmp_path):
    """Saves the encoder of conftest.py as sentence-transformers does."""
    plain = tmp_path / "plain"
    AutoModel.from_pretrained(bert).save_pretrained(plain)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(plain)

    def save(pooling="mean", normalise=True, prompts=None):
        modules = [Transformer(str(plain)), Pooling(16, pooling_mode=pooling)]
        modules += [Normalize()] if normalise else []
        theirs = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
        theirs.save(str(tmp_path / "theirs"))
        return theirs, tmp_path / "theirs"

    return save


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(
    "prompts", [{}, {"query": "where is ", "document": "the old "}, {"passage": "red "}]
)
def test_vectors_equal_theirs(
    saved, corpus, topics, caplog, pooling, normalise, prompts
):
    theirs, folder = saved(pooling, normalise, prompts)
    ours = DenseEncoder.load(str(folder), passage_length=64, query_length=64)
    assert not caplog.records
    passages, queries = list(corpus.values()), list(topics.values())
    # Batches of other shapes round otherwise, in values of up to 2 without a norm.
    found = encode_texts(ours, queries, "query")
    np.testing.assert_allclose(found, theirs.encode_query(queries), atol=1e-5)
    found = encode_texts(ours, passages, "passage")
    name = "passage" if "passage" in prompts else "document"
    expected = theirs.encode(passages, prompt_name=name)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if prompts:
        assert np.abs(expected - theirs.encode(passages)).max() > 0.01


def test_other_prompts_are_told_of(saved, caplog):
    _, folder = saved(prompts={"query": "where is ", "code": "lamp "})
    assert EncoderSettings.saved(str(folder))["query_prefix"] == "where is"
    assert "prompts that are not used: code; to use one" in caplog.text


def test_the_layout_before_version_5(saved):
    """Pooling as one switch a mode, as most models on the hub have it."""
    _, folder = saved("mean", False)
    switches = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": False}
    switches |= {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(switches))
    modules = json.loads((folder / "modules.json").read_text())
    for one in modules:
        one["type"] = "sentence_transformers.models." + one["type"].rpartition(".")[2]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert EncoderSettings.saved(str(folder)) == {"pooling": "cls", "l2_norm": False}


def test_our_own_settings_come_first(saved):
    _, folder = saved("cls", False)
    encoder = DenseEncoder.load(str(folder), pooling="mean", passage_length=64)
    assert encoder.settings.pooling == "mean"
    encoder.save(folder.with_name("ours"))
    for name in ("modules.json", "1_Pooling/config.json"):
        (folder.with_name("ours") / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / name, folder.with_name("ours") / name)
    assert EncoderSettings.saved(str(folder.with_name("ours")))["pooling"] == "mean"


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("1_Pooling/config.json", "pooling_mode", "max", "says pooling by max"),
        ("1_Pooling/config.json", "pooling_mode", "lasttoken", "by lasttoken; we can"),
        ("1_Pooling/config.json", "pooling_mode", ["cls", "mean"], "by cls and mean"),
        ("config_sentence_transformers.json", "prompts", {"query": "q:"}, "'q:'"),
        ("config_sentence_transformers.json", "prompts", {"query": " "}, "' '"),
        ("config_sentence_transformers.json", "prompts", {"corpus": "p\n"}, "passage_"),
    ],
)
def test_what_we_cannot_do_is_refused(saved, file, key, value, message):
    _, folder = saved()
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | {key: value}))
    with pytest.raises(DenseHNError, match="theirs: ") as error:
        DenseEncoder.load(str(folder))
    assert message in str(error.value)


def test_a_dense_module_is_refused(saved):
    _, folder = saved()
    modules = json.loads((folder / "modules.json").read_text())
    dense = {"idx": 3, "name": "3", "path": "3_Dense"}
    modules.append(dense | {"type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(DenseHNError, match="Pooling, Normalize, Dense; we can do"):
        DenseEncoder.load(str(folder))


def test_lower_casing_is_left_to_the_tokenizer(saved):
    """BGE says do_lower_case, and its tokenizer does it; where it does not, we refuse."""
    _, folder = saved()
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    DenseEncoder.load(str(folder), passage_length=64)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(DenseHNError, match="which its tokenizer does not do"):
        DenseEncoder.load(str(folder))
