"""Vectors and encoded topics as files: read back bit for bit, and what is refused."""

import json
import re
import sys

import numpy as np
import pandas
import pytest
import torch

from dense_hn import DenseHNError, __version__, encode, trec
from dense_hn.collections.corpus import corpus_digest
from dense_hn.columns import Docids
from dense_hn.encode import encode_corpus, encode_topics
from dense_hn.encoder import DenseEncoder
from dense_hn.export import __main__ as export
from dense_hn.export import jsonl, lucene
from dense_hn.files import digest
from dense_hn.vectors import Vectors


def made(matrix: np.ndarray, folder) -> Vectors:
    """Vectors of passages p0, p1, …"""
    docids = Docids.of(f"p{n}" for n in range(len(matrix)))
    return Vectors(docids, torch.from_numpy(matrix), "e", "c", folder)


def every_kind_of_float32() -> np.ndarray:
    """[60, 50]: random bits, so all magnitudes; numbers between two of few digits."""
    bits = np.random.default_rng(0).integers(0, 2**32, (60, 50), np.uint32)
    matrix = bits.view(np.float32)
    matrix = np.where(np.isfinite(matrix), matrix, np.float32(0.1))
    info = np.finfo(np.float32)
    matrix[0, :6] = [-0.0, 1 / 3, info.max, info.tiny, info.smallest_subnormal, 1e23]
    tenth = np.float32(0.1)
    matrix[1, :2] = np.nextafter(tenth, np.float32(1)), np.nextafter(tenth, -tenth)
    return matrix


def test_jsonl_gives_the_same_bits_back(tmp_path, monkeypatch):
    """As Pyserini reads it (by way of 64-bit floats), and as Java reads a float."""
    monkeypatch.setattr(jsonl, "CHUNK", 7)
    matrix = every_kind_of_float32()
    vectors = made(matrix, tmp_path / "v")
    # As a shell completes it.
    jsonl.export_jsonl(vectors, f"{tmp_path / 'out'}/")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["vectors.jsonl"]
    lines = (tmp_path / "out" / "vectors.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == vectors.docids
    assert [row["docid"] for row in rows] == vectors.docids
    read = np.array([row["vector"] for row in rows], dtype="float32")
    np.testing.assert_array_equal(read.view(np.int32), matrix.view(np.int32))
    texts = [re.search(r"\[(.*)\]", line)[1].split(",") for line in lines]
    read = np.array([[np.float32(number) for number in row] for row in texts])
    np.testing.assert_array_equal(read.view(np.int32), matrix.view(np.int32))
    manifest = json.loads((tmp_path / "out.json").read_text())
    assert (manifest["encoder"], manifest["corpus"]) == ("e", "c")
    assert (manifest["passages"], manifest["dimension"]) == (60, 50)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (lambda t: t.replace("9.99999978e-03", "9.99999885e-03", 1), 1),
        (lambda t: t.replace("9.99999978e-03", '"0.01"', 1), 1),
        (lambda t: t.replace('"docid": "p2"', '"docid": "p3"'), 3),
        (lambda t: t.replace('{"id": "p2"', '{"id": "p3"'), 3),
        (lambda t: t.replace('"docid": "p2"', '"doc": "p2"'), 3),
        (lambda t: t.replace('"p2"', '"p3"'), 3),
        (lambda t: t.replace("\n", "\n[]\n", 1), 2),
        (lambda t: t.replace("\n", "\n\n", 1), 2),
        (lambda t: t[:-9], 6),
        (lambda t: "".join(t.splitlines(keepends=True)[:-1]), 6),
        (lambda t: t + t.splitlines(keepends=True)[-1], 7),
    ],
)
def test_a_file_that_is_not_what_was_written_is_refused(tmp_path, changed, line):
    """A number by a bit, an id, a key, another line, one cut, one less, one more."""
    vectors = made(np.full((6, 4), 0.01, np.float32), tmp_path / "v")
    path = tmp_path / "vectors.jsonl"
    jsonl.write_jsonl(vectors, path)
    jsonl.require_same(vectors, path)
    path.write_text(changed(path.read_text()))
    with pytest.raises(DenseHNError, match=f"vectors.jsonl:{line}: not what was"):
        jsonl.require_same(vectors, path)


@pytest.fixture
def exporting(bert, corpus, tmp_path, monkeypatch):
    """Calls `dense_hn.export` with vectors of the encoder of conftest.py."""
    encode_corpus(DenseEncoder.load(str(bert)), corpus, tmp_path / "vectors")

    def call(form, *more, encoder=bert):
        words = ["--vectors", tmp_path / "vectors", "--encoder", encoder]
        words += ["--output", tmp_path / "out", "--form", form, *more]
        monkeypatch.setattr(sys, "argv", ["export", *map(str, words)])
        export.main()

    return call


def test_jsonl_from_the_command_line(exporting, bert, corpus, tmp_path, capsys):
    exporting("jsonl")
    assert capsys.readouterr().out == (
        f"python -m dense_hn.pyserini index.faiss --input {tmp_path / 'out'} "
        "--output INDEX --dim 16\n"
    )
    vectors = Vectors.load(tmp_path / "vectors")
    jsonl.require_same(vectors, tmp_path / "out" / "vectors.jsonl")
    manifest = json.loads((tmp_path / "out.json").read_text())
    assert manifest.pop("command").startswith("python ")
    assert manifest == {
        "encoder": DenseEncoder.load(str(bert)).digest(),
        "corpus": corpus_digest(corpus),
        "passages": 48,
        "dimension": 16,
        "vectors": {"form": "jsonl"},
        "dense_hn": __version__,
    }


@pytest.mark.parametrize(
    ("form", "more", "message"),
    [
        ("jsonl", ["--M", "8"], "form jsonl has no parameter M: it has none"),
        ("jsonl", ["--threads", "2"], "form jsonl has no parameter threads"),
        ("jsonl", ["--topics", "t.tsv"], "form jsonl is none; leave it out"),
        ("lucene-flat", ["--efC", "9"], "lucene-flat has no parameter efC: it has no"),
        ("lucene-hnsw", ["--nprobe", "9"], "nprobe: its parameters are M, efC"),
        ("lucene-hnsw", ["--threads", "2"], "threads: its parameters are M, efC"),
        ("lucene-hnsw", ["--M", "1"], "M is 1; it starts at 2"),
        ("lucene-hnsw", ["--efC", "0"], "efC is 0; it starts at 1"),
        ("flat", ["--M", "8"], "form flat has no parameter M: it has none"),
        ("hnsw", ["--pq_m", "8"], "its parameters are M, efC, ef_search"),
    ],
)
def test_what_a_form_does_not_have_is_refused(
    exporting, tmp_path, monkeypatch, form, more, message
):
    monkeypatch.setattr(lucene, "require_unit", None)
    with pytest.raises(DenseHNError, match=message):
        exporting(form, *more)
    assert [path.name for path in tmp_path.iterdir()] == ["vectors"]


@pytest.mark.parametrize("form", ["flat", "jsonl", "lucene-flat", "lucene-hnsw"])
def test_vectors_of_another_encoder_are_refused(exporting, bert, tmp_path, form):
    DenseEncoder.load(str(bert), pooling="cls").save(tmp_path / "cls")
    with pytest.raises(DenseHNError, match="made by another encoder than .*/cls"):
        exporting(form, encoder=tmp_path / "cls")
    assert not list(tmp_path.glob("*out*"))


def test_a_number_that_is_none_is_refused(tmp_path):
    matrix = np.ones((9, 4), np.float32)
    matrix[5, 2], matrix[7, 0] = np.nan, np.inf
    with pytest.raises(
        DenseHNError, match="v: the vector of 'p5' has a number that is"
    ):
        jsonl.export_jsonl(made(matrix, tmp_path / "v"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_encoded_topics_are_the_encoders_vectors(
    name, topics, files, tmp_path, request, monkeypatch, capsys
):
    folder, output = request.getfixturevalue(name), tmp_path / "encoded"
    topics = topics | {"again": topics["q0"]}
    trec.write_topics(files["topics"], topics)
    arguments = ["--encoder", folder, "--topics", files["topics"], "--output", output]
    monkeypatch.setattr(sys, "argv", ["encode", "topics", *map(str, arguments)])
    encode.main()
    printed = capsys.readouterr().out.split()
    assert printed[:4] == ["python", "-m", "dense_hn.pyserini", "search.faiss"]
    assert printed[printed.index("--encoded-queries") + 1] == str(output)

    encoder = DenseEncoder.load(str(folder)).eval()
    frame = pandas.read_pickle(output / "embedding.pkl")
    assert list(frame.columns) == ["id", "text", "embedding"]
    assert [str(kind) for kind in frame.dtypes] == ["object"] * 3
    assert dict(zip(frame["id"], frame["text"], strict=True)) == topics
    lines = (output / "topics.vect.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["qid"] for row in rows] == list(topics)
    for row, text, vector in zip(rows, frame["text"], frame["embedding"], strict=True):
        with torch.no_grad():
            alone = encoder(**encoder.batch(encoder.tokenize([text], "query")))[
                0
            ].numpy()
        assert vector.dtype == np.float32
        np.testing.assert_allclose(vector, alone, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(np.float32(json.loads(row["title"])), vector)

    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["query_encoder"] == encoder.digest("query")
    assert manifest["topics"] == digest(files["topics"])
    assert (manifest["queries"], manifest["dimension"]) == (25, len(vector))


def test_ids_that_pyserini_changes(bert, files, tmp_path, monkeypatch, capsys, caplog):
    """Its search.faiss gets a copy that keeps them; for search.lucene there is none."""
    files["topics"].write_text("007\tone\n7\ttwo\n")
    words = ["--encoder", bert, "--topics", files["topics"], "--output", tmp_path / "e"]
    monkeypatch.setattr(sys, "argv", ["encode", "topics", *map(str, words)])
    encode.main()
    printed = capsys.readouterr().out.split()
    copy = printed[printed.index("--topics") + 1]
    assert copy == str(tmp_path / "e.topics.json")
    # As shells complete a folder's name.
    assert str(encode.topics_beside(f"{tmp_path}/e/")) == copy
    monkeypatch.chdir(tmp_path / "e")
    assert str(encode.topics_beside(".")) == copy
    assert trec.read_topics(copy) == {"007": "one", "7": "two"}
    assert "search.lucene makes a number of query id '007'" in caplog.text


def test_topics_are_refused_before_they_are_encoded(bert, files, tmp_path, monkeypatch):
    monkeypatch.delattr(encode, "encode_texts")
    encoder = DenseEncoder.load(str(bert))
    with pytest.raises(DenseHNError, match="encoded queries has 'bpr' in it"):
        encode_topics(encoder, files["topics"], tmp_path / "x-bpr" / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(DenseHNError, match=r"full: holds other things \(no embedding"):
        encode_topics(encoder, files["topics"], tmp_path / "full")
    files["topics"].write_text("q1\tone\n\n")
    with pytest.raises(DenseHNError, match=":2: empty line"):
        encode_topics(encoder, files["topics"], tmp_path / "out")


def test_commands_are_refused_when_pyserini_would_read_otherwise():
    with pytest.raises(DenseHNError, match="encoded queries has 'bpr' in it"):
        encode.search_command("bpr/encoded", "topics.tsv", "index", "run")
    with pytest.raises(DenseHNError, match="reads topics .* 'cacm' in it"):
        encode.search_command("encoded", "cacm/topics.tsv", "index", "run")
    # A TSV under such a path is read as one; JSONL is, too.
    encode.search_command("encoded", "beir/topics.tsv", "index", "run")
    with pytest.raises(DenseHNError, match="reads topics .* 'beir' in it"):
        lucene.search_command("lucene-flat", "index", "beir/topics.vect.jsonl", "run")


def test_lucene_takes_vectors_of_length_one_only(bert, corpus, tmp_path, monkeypatch):
    """Refused before Java is looked for; the first wrong one is named."""
    monkeypatch.delattr(lucene.java, "java_home")
    encoder = DenseEncoder.load(str(bert), l2_norm=False)
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    with pytest.raises(
        DenseHNError, match="vectors: the vector of 'red-lamp' has leng"
    ):
        lucene.export_lucene(
            vectors, tmp_path / "index", "lucene-flat", encoder, str(bert)
        )

    monkeypatch.setattr(lucene, "CHUNK", 4)
    lengths = np.array([1, 1 + 9e-5, 1 - 9e-5, 1, 1, 1, 1 + 2e-4, 1 - 2e-4, np.nan])
    matrix = np.diag(lengths.astype(np.float32))
    lucene.require_unit(made(matrix[:6], tmp_path))
    with pytest.raises(DenseHNError, match="vector of 'p6' has length 1.0002, "):
        lucene.require_unit(made(matrix, tmp_path))
    for row in (7, 8):
        with pytest.raises(DenseHNError, match="vector of 'p0' has length"):
            lucene.require_unit(made(matrix[row:], tmp_path))
    assert not (tmp_path / "index").exists()
