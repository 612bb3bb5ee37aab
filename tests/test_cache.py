"""Corpora and tokens that are kept: read once, and never out of date."""

import multiprocessing
from pathlib import Path

import pytest

from dense_hn import DenseHNError, cache, columns
from dense_hn.collections import corpus as corpora
from dense_hn.collections.corpus import Corpus, corpus_digest, read_corpus, write_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.token_cache import tokens_of


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_corpus_is_read_once(corpus, tmp_path, monkeypatch):
    path = tmp_path / "corpus.jsonl"
    write_corpus(path, corpus)
    first = read_corpus(path)
    assert dict(first) == corpus
    assert first.digest == corpus_digest(corpus)
    documents = corpora._documents
    read = []
    monkeypatch.setattr(
        corpora, "_documents", lambda files: (read.append(files), documents(files))[1]
    )
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / path.name)
    assert dict(read_corpus(moved)) == corpus
    assert not read
    write_corpus(moved, corpus | {"new": "a text"})
    assert list(read_corpus(moved)) == [*corpus, "new"]
    assert len(read) == 1


def test_what_cannot_be_read_is_not_kept(corpus, tmp_path, home):
    path = tmp_path / "corpus.jsonl"
    write_corpus(path, corpus)
    docid = next(iter(corpus))
    with open(path, "a") as file:
        file.write(f'{{"id": "{docid}", "contents": "again"}}\n')
    for _ in range(2):
        with pytest.raises(DenseHNError, match=f":{len(corpus) + 1}: docid '{docid}'"):
            read_corpus(path)
    assert not [folder for folder in home.rglob("*") if folder.is_dir()][1:]


def test_tokens_are_the_encoders_own_whatever_it_is(bert, roberta, corpus, monkeypatch):
    monkeypatch.setattr(columns, "ROWS", 7)
    columned = Corpus.of(corpus)
    texts = list(corpus.values())
    for folder in (bert, roberta):
        for settings in ({}, {"query_prefix": "find"}, {"passage_length": 5}):
            if folder == roberta and "query_prefix" in settings:
                continue
            encoder = DenseEncoder.load(str(folder), **settings)
            for kind in ("query", "passage"):
                for length in (None, 4):
                    for _ in range(2):
                        kept = tokens_of(encoder, columned, kind, length)
                        expected = encoder.tokenize(texts, kind, length)
                        assert [ids.tolist() for ids in kept] == expected


def test_tokens_are_made_once(bert, corpus, monkeypatch):
    encoder, columned = DenseEncoder.load(str(bert)), Corpus.of(corpus)
    made = []
    tokenize = encoder.tokenize
    monkeypatch.setattr(
        encoder, "tokenize", lambda *args: (made.append(args), tokenize(*args))[1]
    )
    for _ in range(2):
        tokens_of(encoder, columned, "passage")
    assert len(made) == 1


def _make(barrier, number):
    def write(folder: Path) -> None:
        (folder / "who").write_text(str(number))

    barrier.wait()
    kept = cache.folder("things", ["the same"], write)
    assert (kept / "who").read_text().isdigit()


def test_of_many_processes_one_makes_it(home):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(8)
    processes = [context.Process(target=_make, args=(barrier, n)) for n in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    assert len(list(home.rglob("who"))) == 1


def test_a_home_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file"))
    with pytest.raises(DenseHNError, match=f"file/things: nothing .* {cache.VARIABLE}"):
        cache.folder("things", 1, lambda folder: None)


def test_a_failure_leaves_nothing(home):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise DenseHNError("no")

    with pytest.raises(DenseHNError):
        cache.folder("things", 1, fail)
    assert not list(home.rglob("half"))
    kept = cache.folder("things", 1, lambda folder: (folder / "all").write_text("x"))
    assert (kept / "all").read_text() == "x"
