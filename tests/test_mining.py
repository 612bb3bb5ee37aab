"""Mining: the model's own similarity, and runs known by what they were made from."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from transformers import BertModel, BertTokenizerFast

from dense_hn import DenseHNError, mine, provenance, trec
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder


def scaled(source, folder, factor):
    """The same encoder with other weights: all word embeddings times a factor."""
    encoder = DenseEncoder.load(str(source))
    with torch.no_grad():
        encoder.model.get_input_embeddings().weight.mul_(factor)
    encoder.save(folder)
    return DenseEncoder.load(str(folder))


def test_a_dot_product_model_mines_by_dot_product(bert, corpus, topics, tmp_path):
    """Norms that vary: the best 20 by dot product are not the best 20 by cosine.

    Vectors from transformers alone, text by text, in float64.
    """
    encoder = DenseEncoder.load(str(bert), pooling="mean", l2_norm=False)
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    found = dict(mine.retrieve(encoder, vectors, topics, 20))
    model = BertModel.from_pretrained(bert).double().eval()
    tokenizer = BertTokenizerFast.from_pretrained(bert)

    def vector(text, length):
        tokens = tokenizer(
            text, truncation=True, max_length=length, return_tensors="pt"
        )
        with torch.no_grad():
            return model(**tokens)[0][0].mean(dim=0).numpy()

    passages = np.stack([vector(text, 32) for text in corpus.values()])
    norms = np.linalg.norm(passages, axis=1)
    assert norms.max() > 1.1 * norms.min()
    cosine_differs = 0
    for qid, text in topics.items():
        scores = dict(zip(corpus, (passages @ vector(text, 16)).tolist(), strict=True))
        best = sorted(scores, key=lambda d: -scores[d])[:20]
        assert set(found[qid]) == set(best)
        cosine = dict(zip(corpus, np.array(list(scores.values())) / norms, strict=True))
        cosine_differs += set(sorted(cosine, key=lambda d: -cosine[d])[:20]) != set(
            best
        )
    assert cosine_differs > len(topics) / 2


def test_relevant_documents_are_listed_with_their_scores(
    bert, corpus, topics, qrels, tmp_path
):
    encoder = DenseEncoder.load(str(bert))
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    everything = dict(mine.retrieve(encoder, vectors, topics, len(corpus)))
    found = dict(mine.retrieve(encoder, vectors, topics, 3, qrels))
    added = 0
    for qid, hits in found.items():
        best = list(everything[qid])[:3]
        behind = [d for d in trec.positives(qrels, qid) if d not in best]
        assert sorted(hits) == sorted(best + behind)
        added += len(behind)
        for docid, score in hits.items():
            assert score == pytest.approx(everything[qid][docid], abs=1e-6)
    assert added > 10


def test_a_run_is_known_by_weights_and_inputs_not_by_names(
    bert, corpus, topics, files, tmp_path, caplog
):
    """One output, one encoder folder: other weights in it, and the run is mined anew."""
    model, folder, output = tmp_path / "m", tmp_path / "vectors", tmp_path / "run.own"

    caplog.set_level(logging.INFO, "dense_hn")

    def mined(encoder):
        vectors = encode_corpus(encoder, corpus, folder)
        mine.mine(encoder, vectors, files["topics"], 5, output, "t", files["qrels"])
        return output.read_bytes(), json.loads((tmp_path / "run.own.json").read_text())

    def left_alone():
        """How many outputs were left as they were, since the last call."""
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return sum("holds this" in m or "is there" in m for m in messages)

    first, facts = mined(scaled(bert, model, 1.0))
    assert left_alone() == 0
    again, _ = mined(DenseEncoder.load(str(model)))
    assert again == first
    assert left_alone() == 2

    shutil.rmtree(model)
    other, other_facts = mined(scaled(bert, model, 3.0))
    assert left_alone() == 0
    assert other != first
    changed = {
        name
        for name, value in facts["made_from"].items()
        if other_facts["made_from"][name] != value
    }
    assert changed == {"query_encoder", "passage_encoder"}

    # The precision of the same encoder's vectors.
    shutil.rmtree(folder)
    vectors = encode_corpus(DenseEncoder.load(str(model)), corpus, folder, "bf16")
    arguments = files["topics"], 5, output, "t", files["qrels"]
    mine.mine(DenseEncoder.load(str(model)), vectors, *arguments)
    assert left_alone() == 0
    assert json.loads((tmp_path / "run.own.json").read_text())["made_from"][
        "precision"
    ] == ("bf16")
    shutil.rmtree(folder)
    assert mined(DenseEncoder.load(str(model)))[0] == other

    # Other topics under the same name, and then a run that somebody edited.
    trec.write_topics(files["topics"], topics | {"q0": "an apple"})
    assert mined(DenseEncoder.load(str(model)))[0] != other
    edited = output.read_text().replace("q1 ", "q2 ", 1)
    output.write_text(edited)
    assert not provenance.is_made_from(output, facts["made_from"])
    mined(DenseEncoder.load(str(model)))
    assert output.read_text() != edited


def test_what_no_run_can_be_is_refused(bert, corpus, files, tmp_path):
    encoder = DenseEncoder.load(str(bert))
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    for hits in (0, -5):
        with pytest.raises(DenseHNError, match=f"--hits is {hits}; it starts at 1"):
            mine.mine(encoder, vectors, files["topics"], hits, tmp_path / "r", "t")
    with pytest.raises(DenseHNError, match="vectors: is a folder; name a file in it"):
        mine.mine(encoder, vectors, files["topics"], 5, tmp_path / "vectors", "t")
    with pytest.raises(DenseHNError, match="r: tag 'a b' is empty or has white space"):
        mine.mine(encoder, vectors, files["topics"], 5, tmp_path / "r", "a b")
    assert not (tmp_path / "r").exists()


def test_the_config_is_part_of_a_digest(bert, tmp_path):
    """The same weights with another activation give other vectors."""
    shutil.copytree(bert, tmp_path / "other")
    config = json.loads((bert / "config.json").read_text())
    assert config["hidden_act"] == "gelu"
    config["hidden_act"] = "relu"
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    one = DenseEncoder.load(str(bert))
    other = DenseEncoder.load(str(tmp_path / "other"))
    assert one.digest() != other.digest()
    one.save(tmp_path / "again")
    assert DenseEncoder.load(str(tmp_path / "again")).digest() == one.digest()


def test_query_settings_are_part_of_a_run_and_not_of_the_passages(bert):
    plain = DenseEncoder.load(str(bert))
    prefixed = DenseEncoder.load(str(bert), query_prefix="where is")
    assert plain.digest() == prefixed.digest()
    assert plain.digest("query") != prefixed.digest("query")


def test_qrels_with_an_unknown_document_are_refused(bert, corpus, files, tmp_path):
    encoder = DenseEncoder.load(str(bert))
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    files["qrels"].write_text("q0 0 nowhere 1\n")
    with pytest.raises(DenseHNError, match="qrels.txt: docid 'nowhere'"):
        mine.mine(
            encoder, vectors, files["topics"], 5, tmp_path / "o", "t", files["qrels"]
        )
    assert not (tmp_path / "o").exists()
