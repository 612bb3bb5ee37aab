"""Our BM25 against Pyserini's own command line, and an indexer that lies."""

import json
import logging
import os
import subprocess
import sys

import pytest

from dense_hn import DenseHNError, bm25, trec
from dense_hn.collections.corpus import corpus_digest
from dense_hn.files import digest as files_digest


@pytest.fixture(scope="module")
def index(corpus, tmp_path_factory):
    """Lucene index of the made corpus."""
    folder = tmp_path_factory.mktemp("bm25") / "index"
    bm25.index(corpus, folder)
    return folder


def test_equals_pyserinis_own_search(index, files, topics, tmp_path):
    ours = dict(bm25.search(index, topics, hits=15, k1=1.2, b=0.75))
    command = [sys.executable, "-m", "dense_hn.pyserini", "search.lucene", "--bm25"]
    command += ["--k1", "1.2", "--b", "0.75", "--hits", "15", "--index", str(index)]
    command += ["--topics", str(files["topics"]), "--output", str(tmp_path / "theirs")]
    subprocess.run(command, check=True, capture_output=True, env=dict(os.environ))
    theirs = trec.read_run(tmp_path / "theirs")
    assert len(ours) == len(topics)
    assert ours.keys() == theirs.keys()
    for qid, hits in ours.items():
        assert trec.ranked(hits) == trec.ranked(theirs[qid])
        for docid, score in hits.items():
            assert theirs[qid][docid] == pytest.approx(score, abs=1e-4)


def test_topics_without_a_hit_are_counted(index, caplog):
    topics = {"a": "lamp", "b": "nothingofthesort", "c": "the"}
    run = bm25.search(index, topics, hits=3)
    assert [qid for qid, _ in run] == ["a"]
    assert "2 topics have no hit" in caplog.text


def test_topics_in_another_language_are_told(index, tmp_path):
    """A run without a line is none."""
    (tmp_path / "topics.tsv").write_text("q1\tnichts davon\nq2\trien de tout\n")
    with pytest.raises(DenseHNError, match="none of 2 topics has a hit"):
        bm25.mine(index, tmp_path / "topics.tsv", 5, tmp_path / "run", "t")
    assert [path.name for path in tmp_path.iterdir()] == ["topics.tsv"]


def test_a_run_says_what_it_was_made_from(index, files, corpus, tmp_path, caplog):
    caplog.set_level(logging.INFO, "dense_hn")
    output = tmp_path / "run.bm25"
    for _ in range(2):
        bm25.mine(index, files["topics"], 5, output, "t")
    assert "made from the same index and topics" in caplog.text
    facts = json.loads((tmp_path / "run.bm25.json").read_text())
    assert facts["made_from"]["corpus"] == corpus_digest(corpus)
    assert facts["made_from"]["topics"] == files_digest(files["topics"])
    before = output.read_bytes()
    bm25.mine(index, files["topics"], 5, output, "t", k1=2.0)
    assert output.read_bytes() != before


def test_what_bm25_is_not_is_refused(index, files, tmp_path):
    output = tmp_path / "run"
    for k1, b in ((-1, 0.4), (0.9, 75), (float("nan"), 0.4)):
        with pytest.raises(DenseHNError, match=f"k1 is {k1} and b {b}; from 0"):
            bm25.mine(index, files["topics"], 5, output, "t", k1, b)
    with pytest.raises(DenseHNError, match="--hits is 0"):
        bm25.mine(index, files["topics"], 0, output, "t")
    with pytest.raises(DenseHNError, match=r"no Lucene index \(no segments_"):
        bm25.mine(files["corpus"].parent, files["topics"], 5, output, "t")
    assert not output.exists()


def test_an_incomplete_index_is_refused(corpus, tmp_path, monkeypatch):
    """Lucene skips what it cannot read and ends with status 0."""
    write = bm25.write_corpus

    def without_contents(path, corpus):
        write(path, corpus)
        lines = path.read_text().splitlines()
        lines[5] = '{"id": "lamp"}'
        path.write_text("\n".join(lines) + "\n")

    monkeypatch.setattr(bm25, "write_corpus", without_contents)
    with pytest.raises(DenseHNError, match=r"Lucene indexed \d+ of 48.*Exception"):
        bm25.index(corpus, tmp_path / "index")
    assert not list(tmp_path.iterdir())
