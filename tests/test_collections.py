"""The corpus reader's refusals, and pydoc on a package written here."""

import json
import subprocess
import sys

import pytest

from dense_hn import DenseHNError, trec
from dense_hn.collections import pydoc, sources
from dense_hn.collections.corpus import read_corpus, write_corpus

GOOD = '{"id": "a", "contents": "text"}\n'


def test_corpus_round_trip(tmp_path):
    corpus = {"a": "one\nline “two”", "b\u00e9": "x"}
    write_corpus(tmp_path / "c.jsonl", corpus)
    assert read_corpus(tmp_path / "c.jsonl") == corpus
    lines = (tmp_path / "c.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {"id": "a", "contents": "one\nline “two”"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "\n", ":2: empty line"),
        (GOOD + '{"id": "b", "contents"\n', ":2: broken JSON"),
        (GOOD + '["b"]\n', ":2: a list, not a JSON object"),
        (GOOD + '{"id": "b"}\n', ":2: 'contents' is missing, empty"),
        (GOOD + '{"id": "b", "contents": " "}\n', ":2: 'contents' is missing, empty"),
        (GOOD + '{"id": 7.5, "contents": "x"}\n', ":2: 'id' is missing, empty"),
        (
            GOOD + '{"id": "b c", "contents": "x"}\n',
            ":2: docid 'b c' is empty or has white",
        ),
        (GOOD + GOOD, ":2: docid 'a' occurs twice"),
        ("", ": no document in this file"),
    ],
)
def test_corpus_refusals_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "c.jsonl"
    path.write_text(text)
    with pytest.raises(DenseHNError) as error:
        read_corpus(path)
    assert str(error.value).startswith(f"{path}{message}")


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return the sum. Then rest.", "Return the sum."),
        ("Return e.g. one\n    of two\n\nMore.", "Return e.g."),
        ("  Spread over\n  two lines\n\n  Next paragraph.", "Spread over two lines"),
        ("Is it so? Yes.", "Is it so?"),
    ],
)
def test_first_sentence(docstring, sentence):
    assert pydoc.first_sentence(docstring) == sentence


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("json.JSONDecoder.raw_decode", "json JSON Decoder raw decode"),
        ("_a.__init__", "a init"),
        ("x.getHTTPResponse2Text", "x get HTTP Response2 Text"),
    ],
)
def test_words_of_a_dotted_name(name, words):
    assert pydoc.words(name) == words


SOURCE = '''
import does_not_exist_anywhere

raise SystemExit("imported!")


def plain(a, b=1):
    """Add two numbers. And more."""
    return a + b  # a comment


class Box:
    def get(self):
        """Get what is inside.

        Long story.
        """

    if True:
        async def wait(self):
            "Wait until it is full"
            return await self

    def short(self):
        """Too short."""

    def undocumented(self):
        return 1
'''
COPY = '''
def plain(a, b=1):
    """Add two numbers."""
    return a + b


def same(a):
    """Get what is inside."""
    return a
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that cannot be imported, with a copy and an ambiguous sentence."""
    folder = tmp_path / "site" / "planted"
    (folder / "tests").mkdir(parents=True)
    (folder / "__init__.py").write_text(SOURCE)
    (folder / "copy.py").write_text(COPY)
    (folder / "tests" / "test_it.py").write_text(COPY.replace("plain", "tested"))
    (folder / "broken.py").write_text("def (:\n")
    many = "\n".join(
        f'def f{n}():\n    """Give number {n} to you."""\n    return {n}\n'
        for n in range(200)
    )
    (folder / "many.py").write_text(many)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return "planted"


def test_pydoc_of_a_planted_package(tmp_path, package, caplog):
    caplog.set_level("INFO", logger="dense_hn")
    sources.build("pydoc", [package], tmp_path / "out")
    corpus = read_corpus(tmp_path / "out" / "corpus" / "corpus.jsonl")
    named = {docid: text for docid, text in corpus.items() if ".many." not in docid}
    assert named == {
        "planted.plain": "planted plain\ndef plain(a, b=1):\n    return a + b",
        "planted.Box.get": "planted Box get\ndef get(self):\n    pass",
        "planted.Box.wait": "planted Box wait\nasync def wait(self):\n"
        "    return await self",
        "planted.copy.same": "planted copy same\ndef same(a):\n    return a",
    }
    assert "broken.py: left out" in caplog.text
    assert "204 documents" in caplog.text
    assert "1 functions with a first sentence under 3 words, 1 copies" in caplog.text
    assert "1 topics that stand for several functions" in caplog.text

    topics, qrels = {}, {}
    for split in pydoc.SPLITS:
        ours = trec.read_topics(tmp_path / "out" / f"topics.{split}.tsv")
        judged = trec.read_qrels(tmp_path / "out" / f"qrels.{split}.txt")
        assert list(ours) == list(judged)
        assert not topics.keys() & ours.keys()
        topics |= ours
        qrels |= judged
    answers = {topics[qid]: list(judged) for qid, judged in qrels.items()}
    assert len(answers) == 202
    assert answers["Add two numbers."] == ["planted.plain"]
    assert answers["Wait until it is full"] == ["planted.Box.wait"]
    assert answers["Give number 17 to you."] == ["planted.many.f17"]
    assert "Get what is inside." not in answers


def test_pydoc_is_the_same_every_time(tmp_path, package):
    """Also under another hash seed, in another process."""
    sources.build("pydoc", ["json", package], tmp_path / "one")
    subprocess.run(
        [sys.executable, "-m", "dense_hn.collections", f"pydoc:[json, {package}]"]
        + ["--output", str(tmp_path / "two")],
        env={"PYTHONPATH": str(tmp_path / "site"), "PYTHONHASHSEED": "11"},
        check=True,
    )
    one = {p.name: p.read_bytes() for p in (tmp_path / "one").rglob("*.*")}
    assert one == {p.name: p.read_bytes() for p in (tmp_path / "two").rglob("*.*")}


def test_pydoc_refuses_what_is_not_there(tmp_path):
    with pytest.raises(DenseHNError, match="package 'no_such_thing' is installed"):
        sources.build("pydoc", ["no_such_thing"], tmp_path / "out")
    with pytest.raises(DenseHNError, match="name more packages"):
        sources.build("pydoc", ["this"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
