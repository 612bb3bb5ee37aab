"""Passages' vectors with their documents' in them, against a slow float64 loop."""

import logging
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch

from dense_hn import DenseHNError, document_vector, encode, maxp
from dense_hn.belonging import require_same_vectors
from dense_hn.collections.corpus import Corpus
from dense_hn.encode import encode_corpus, encode_in_memory, encode_some, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.index import read_index
from dense_hn.train import arguments, commands, hard_negatives
from dense_hn.train.evaluation import encode_share, take_share

WEIGHT, LENGTH, LONG = 0.75, 12, 32


@pytest.fixture(scope="module")
def passages(corpus):
    """The made corpus as passages of documents of 1 to 9, which overlap by a word."""
    texts, made = list(corpus.values()), {}
    for document in range(100):
        size = 1 + document % 9
        if len(made) + size > len(texts):
            return made
        last = ""
        for number in range(size):
            text = f"{last} {texts[len(made)]}".strip()
            made[f"d{document}#{number}"] = text
            last = text.split()[-1]
    return made


@pytest.fixture(scope="module")
def expected(passages, bert):
    """What document_weight should give, from vectors of single texts."""
    plain = DenseEncoder.load(str(bert), passage_length=LENGTH)
    own = encode_texts(plain, list(passages.values()), "passage").double().numpy()
    longer = DenseEncoder.load(str(bert), passage_length=LONG)
    wholes = {}
    for docid, text in passages.items():
        name = docid.split("#")[0]
        # All but the word that the passage before ends with.
        more = text.split()[1:] if name in wholes else text.split()
        wholes[name] = [*wholes.get(name, []), *more]
    texts = [" ".join(words) for words in wholes.values()]
    assert max(map(len, wholes.values())) > LONG > LENGTH
    encoded = encode_texts(longer, texts, "passage").double().numpy()
    of = dict(zip(wholes, encoded, strict=True))
    rows = []
    for docid, vector in zip(passages, own, strict=True):
        row = [
            (one + WEIGHT * other) / (1 + WEIGHT)
            for one, other in zip(vector, of[docid.split("#")[0]], strict=True)
        ]
        length = sum(value**2 for value in row) ** 0.5
        rows.append([value / length for value in row])
    return np.array(rows)


@pytest.fixture(scope="module")
def encoder(bert):
    return DenseEncoder.load(
        str(bert),
        passage_length=LENGTH,
        document_weight=WEIGHT,
        document_length=LONG,
    )


def test_a_documents_text_has_what_passages_share_once():
    parts = ["a b c d", "c d e", "e", "f f  g", "f g h"]
    corpus = {f"one#{number}": text for number, text in enumerate(parts)}
    corpus |= {"two#0": "a b", "two#1": "a b", "two#2": "c", "three": "a  b"}
    whole = {"one": "a b c d e f f g h", "two": "a b c", "three": "a  b"}
    assert maxp.documents(corpus) == whole


def test_vectors_that_have_no_length_of_one_keep_theirs():
    vectors, wholes = np.float32([[3, 0], [0, 1]]), np.float32([[1, 2], [1, 2]])
    found = document_vector.add(vectors, wholes, 0.5, False)
    # (3 + .5) / 1.5, (0 + 1) / 1.5; (0 + .5) / 1.5, (1 + 1) / 1.5
    np.testing.assert_allclose(found, [[7 / 3, 2 / 3], [1 / 3, 4 / 3]], rtol=1e-6)
    assert found.dtype == np.float32


def test_cuts_move_to_where_no_document_is_cut():
    docids = ["a#0", "a#1", "b", "c#0", "c#1", "c#2", "d"]
    assert document_vector.moved(range(8), docids) == [0, 2, 2, 3, 6, 6, 6, 7]
    assert document_vector.require_together(docids) == 2


@pytest.mark.parametrize("window", [1, 7, 100])
def test_a_corpus_has_them_in_windows_of_any_size(
    window, passages, encoder, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(encode, "WINDOW", window)
    vectors = encode_corpus(encoder, passages, tmp_path / "vectors")
    np.testing.assert_allclose(vectors.matrix, expected, atol=1e-6)
    assert torch.equal(encode_in_memory(encoder, passages).matrix, vectors.matrix)
    some = ["d8#3", "d0#0", "d8#1"]
    rows = [list(passages).index(docid) for docid in some]
    np.testing.assert_allclose(
        encode_some(encoder, passages, some).matrix, expected[rows], atol=1e-6
    )


def test_what_was_stopped_goes_on(passages, encoder, tmp_path, monkeypatch):
    """The windows that are there are not encoded again."""
    monkeypatch.setattr(encode, "WINDOW", 7)
    whole = encode_corpus(encoder, passages, tmp_path / "whole").matrix
    real, left = encode._encode, [3]

    def stopping(*args):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(encode, "_encode", stopping)
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(encoder, passages, tmp_path / "stopped")
    again = encode_corpus(encoder, passages, tmp_path / "stopped").matrix
    assert torch.equal(again, whole)
    # Two calls a window, of passages and of documents; the third one, of a window, was stopped.
    windows = len(encode._windows(encode._cuts_of(encoder, Corpus.of(passages))))
    assert 3 - left[0] == 2 * windows + 1


def test_the_weight_is_part_of_the_vectors_and_not_of_the_queries(bert, encoder):
    plain = DenseEncoder.load(str(bert), passage_length=LENGTH)
    assert plain.digest() != encoder.digest()
    assert plain.digest("query") == encoder.digest("query")
    settings = {"passage_length": LENGTH, "document_length": LONG}
    assert plain.digest() == DenseEncoder.load(str(bert), **settings).digest()
    settings |= {"document_weight": WEIGHT, "document_length": LONG - 1}
    assert encoder.digest() != DenseEncoder.load(str(bert), **settings).digest()
    # A recipe says 1, and a command line makes it 1.0.
    settings |= {"document_length": LONG}
    one, same = (
        DenseEncoder.load(str(bert), **settings | {"document_weight": weight})
        for weight in (1, 1.0)
    )
    assert one.digest() == same.digest()


def test_a_saved_encoder_has_its_weight(encoder, tmp_path):
    encoder.save(tmp_path / "saved")
    again = DenseEncoder.load(str(tmp_path / "saved"))
    assert again.settings.document_weight == WEIGHT
    assert again.digest() == encoder.digest()


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_other_weights_are_refused(weight, bert):
    with pytest.raises(DenseHNError, match="document_weight is .* a number from 0 on"):
        DenseEncoder.load(str(bert), document_weight=weight)


@pytest.mark.parametrize(
    "docids",
    [
        ["d0#0", "d1#0", "d0#1"],
        # As a plain sort has them.
        ["d0#1", "d0#10", "d0#2"],
        ["d0", "d0#0"],
        ["d0#a", "d0#b"],
    ],
)
def test_documents_that_are_scattered_are_refused(
    docids, encoder, tmp_path, monkeypatch
):
    monkeypatch.delattr(encode, "_encode_windows")
    with pytest.raises(DenseHNError, match="'d0' do not stand one after another"):
        encode_corpus(encoder, dict.fromkeys(docids, "lamp"), tmp_path / "vectors")
    assert not list(tmp_path.iterdir())


def test_the_only_passage_of_a_document_keeps_its_vector(bert, tmp_path, caplog):
    """Also where the document would be cut elsewhere than the passage."""
    caplog.set_level(logging.WARNING)
    corpus = {"a#0": "old new " * 10, "b": "lamp"}
    settings = {"passage_length": LENGTH, "document_weight": 1, "document_length": LONG}
    encoder = DenseEncoder.load(str(bert), **settings)
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors").matrix
    assert any("changes nothing" in line for line in caplog.messages)
    assert torch.equal(vectors, encode_texts(encoder, [*corpus.values()], "passage"))


def test_dynamic_refuses_what_it_cannot_keep_up(bert, files, tmp_path):
    settings = {"document_weight": 1, "document_length": LONG}
    DenseEncoder.load(str(bert), **settings).save(tmp_path / "weighted")
    given = {name: files[name] for name in ("corpus", "topics", "qrels")}
    given |= {"encoder": tmp_path / "weighted", "output_dir": tmp_path / "out"}
    argv = [*arguments.argv_of(given), "--max_steps", "1", "--use_cpu", "true"]
    with pytest.raises(DenseHNError, match=r"document_weight is 1\.0, and here"):
        commands.train("dynamic", argv)


def test_negatives_are_mined_anew_among_vectors_of_whole_documents(
    passages, encoder, expected, monkeypatch, tmp_path
):
    """Also where only some passages of a document may be negatives."""
    searched = []

    def retrieve(model, vectors, *_):
        searched.append(vectors)
        return {"q": {"d1#1": 1.0}}

    monkeypatch.setattr(hard_negatives, "retrieve", retrieve)
    monkeypatch.setattr(hard_negatives.Refresh, "_use", lambda *_: None)
    pool = [docid for docid in passages if docid.endswith("#1")]
    refresh = hard_negatives.Refresh(
        SimpleNamespace(judged_only=True, negatives_depth=3),
        None,
        None,
        Corpus.of(passages),
        SimpleNamespace(pool=lambda _: pool, topics={}, qrels={}),
    )
    state = SimpleNamespace(global_step=1, is_world_process_zero=True)
    refresh._mine(SimpleNamespace(output_dir=str(tmp_path)), encoder, state)
    assert list(searched[0].docids) == pool
    rows = [list(passages).index(docid) for docid in pool]
    np.testing.assert_allclose(searched[0].matrix, expected[rows], atol=1e-6)


def test_an_index_is_known_by_its_weight(passages, bert, encoder, tmp_path):
    matrix = encode_corpus(encoder, passages, tmp_path / "vectors").matrix
    written = faiss.index_factory(matrix.shape[1], "Flat", faiss.METRIC_INNER_PRODUCT)
    written.add(matrix.numpy())
    faiss.write_index(written, str(tmp_path / "index"))
    (tmp_path / "docid").write_text("".join(f"{docid}\n" for docid in passages))
    index = read_index(tmp_path)
    require_same_vectors(index, encoder, "it", passages, "c.jsonl")
    plain = DenseEncoder.load(str(bert), passage_length=LENGTH)
    with pytest.raises(DenseHNError, match="another encoder"):
        require_same_vectors(index, plain, "it", passages, "c.jsonl")


def test_a_share_of_the_corpus_has_whole_documents(passages, encoder):
    corpus = Corpus.of(passages)
    found = encode_share(encoder, {"d8#2"}, corpus, 0.3, 1, by_document=True)
    taken = {docid.split("#")[0] for docid in found.docids}
    assert "d8" in taken
    documents = len({docid.split("#")[0] for docid in passages})
    assert len(taken - {"d8"}) in (int(0.3 * documents), int(0.3 * documents) - 1)
    assert list(found.docids) == [d for d in passages if d.split("#")[0] in taken]
    whole = encode_in_memory(encoder, passages)
    again = take_share(whole, {"d8#2"}, 0.3, 1, by_document=True)
    assert list(again.docids) == list(found.docids)
    np.testing.assert_allclose(again.matrix, found.matrix, atol=1e-6)
    # A share of passages has their documents in their vectors, too.
    some = encode_share(encoder, {"d8#2"}, corpus, 0.3, 1)
    assert len(some.docids) < len({*some.docids} | {*found.docids})
    rows = whole.docids.rows(list(some.docids))
    np.testing.assert_allclose(some.matrix, whole.matrix[rows], atol=1e-6)
