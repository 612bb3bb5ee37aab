"""JSONL vectors, encoded topics and dense Lucene indexes in the real Pyserini.

Runs the command lines that read them and compares their runs with our search. The
exporters' self-checks run in processes of their own.
"""

import contextlib
import io
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from replay import run_here
from test_search_faiss import assert_same_run

from dense_hn import DenseHNError, encode, search, trec
from dense_hn.columns import Docids
from dense_hn.encode import encode_corpus, json_vector
from dense_hn.encoder import DenseEncoder
from dense_hn.export import __main__ as export
from dense_hn.export import lucene
from dense_hn.mine import retrieve
from dense_hn.vectors import Vectors

# Java trims what is below a blank, and neither of the other white spaces.
ODD = {
    "blanks": "  where  is   a lamp  ",
    "control": "\x0b\x01\x1fwhere is\x1fa\x01lamp\x1c\x0c",
    "wide": "\u3000where\u3000is a\xa0lamp\xa0",
    "next": "\x85where is\u2028a lamp\u2029",
    "emoji": "\U0001f600 where is a lamp \U0001f600",
    "again": "where is a lamp",
    "twice": "where is a lamp",
    "quotes": 'where is "a" \\lamp\\',
}


@pytest.fixture(scope="module", params=["bert", "roberta"])
def encoded(request, corpus, topics, tmp_path_factory):
    """An encoder's folder with vectors, encoded topics and the run of 20 hits."""
    root = tmp_path_factory.mktemp(request.param)
    source = request.getfixturevalue(request.param)
    encoder = DenseEncoder.load(str(source))
    vectors = encode_corpus(encoder, corpus, root / "vectors")
    # By hand, since write_topics leaves one blank of several.
    lines = "".join(f"{qid}\t{text}\n" for qid, text in (topics | ODD).items())
    (root / "topics.tsv").write_text(lines)
    read = trec.read_topics(root / "topics.tsv")
    return root, source, vectors, dict(retrieve(encoder, vectors, read, 20))


def printed(monkeypatch, module, *words: str) -> list[list[str]]:
    """The commands that a module of ours prints, without `python -m`."""
    words = [*words, *(["--vectors", "vectors"] if module is export else [])]
    monkeypatch.setattr(sys, "argv", ["x", *words])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        module.main()
    lines = [shlex.split(line) for line in out.getvalue().splitlines()]
    assert all(line[:2] == ["python", "-m"] for line in lines)
    return [line[2:] for line in lines]


def test_jsonl_and_encoded_topics(encoded, monkeypatch):
    """Indexed by `pyserini.index.faiss` and searched, both as is printed."""
    root, source, _, ours = encoded
    monkeypatch.chdir(root)
    words = ["--encoder", str(source), "--output"]
    (indexing,) = printed(monkeypatch, export, *words, "jsonl", "--form", "jsonl")
    run_here(indexing[0], [*indexing[1:], "--threads", "1"])
    words = ["topics", *words, "encoded", "--topics", "topics.tsv"]
    (search,) = printed(monkeypatch, encode, *words)
    search[search.index("--hits") + 1] = "20"
    run_here(search[0], search[1:])
    assert_same_run(ours, trec.read_run(root / "RUN.txt"))


def half(run: trec.Run) -> trec.Run:
    """Lucene's score of each dot product."""
    return {q: {d: (1 + s) / 2 for d, s in hits.items()} for q, hits in run.items()}


def searched(form: str, index: Path, topics: Path, hits: int) -> trec.Run:
    """The run of the command that searches a dense Lucene index."""
    output = index.with_suffix(".run")
    arguments = lucene.search_command(form, index, topics, output, hits)
    run_here("dense_hn.pyserini", ["search.lucene", *arguments])
    return trec.read_run(output)


@pytest.mark.parametrize("encoded", ["bert"], indirect=True)
@pytest.mark.parametrize(
    ("form", "given", "stored"),
    [("lucene-flat", [], {}), ("lucene-hnsw", ["--M", "8"], {"M": 8, "efC": 100})],
)
def test_lucene_by_the_commands_that_are_printed(
    encoded, form, given, stored, monkeypatch, caplog
):
    """Exported, topics encoded, and searched; so few passages are all found in a graph."""
    root, source, vectors, ours = encoded
    caplog.set_level("INFO", "dense_hn")
    words = ["--encoder", str(source), "--topics", "topics.tsv", "--form", form, *given]
    monkeypatch.chdir(root)
    encoding, search = printed(monkeypatch, export, *words, "--output", form)
    (said,) = [m for m in caplog.messages if "Pyserini" in m]
    assert ": 48 passages; Pyserini " in said
    assert " finds our 10 hits of 14 queries, " in said
    assert said.endswith("100.0% of the exact top 10")
    manifest = json.loads((root / form / "manifest.json").read_text())
    assert (manifest["encoder"], manifest["corpus"]) == (
        vectors.encoder,
        vectors.corpus,
    )
    assert manifest["vectors"] == {"form": form} | stored
    assert not (root / form / "jsonl").exists()
    run_here(encoding[0], encoding[1:])
    search[search.index("--hits") + 1] = "20"
    run_here(search[0], search[1:])
    assert_same_run(half(ours), trec.read_run(root / "RUN.txt"))


def test_lucene_hnsw(tmp_path):
    """3,000 unit vectors in 60 clusters: nine of flat's top 10 at least, on average.

    More hits than HNSW's default of candidates come, too, and a second index of the
    same vectors finds the same.
    """
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, 32))
    matrix = np.repeat(centres, 50, axis=0) + 0.5 * rng.standard_normal((3000, 32))
    queries = centres[:40] + 0.5 * rng.standard_normal((40, 32))
    matrix, queries = (
        torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)).float()
        for x in (matrix, queries)
    )
    vectors = Vectors(
        Docids.of(f"d{n}" for n in range(3000)), matrix, "e", "c", tmp_path
    )
    topics = tmp_path / "topics.vect.jsonl"
    rows = enumerate(queries.tolist())
    lines = [json.dumps({"qid": f"q{n}", "title": json_vector(x)}) for n, x in rows]
    topics.write_text("\n".join(lines) + "\n")
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        parameters = lucene.FORMS["lucene-hnsw"]
        lucene.write_lucene(vectors, tmp_path / name, "lucene-hnsw", parameters, name)
        runs.append(searched("lucene-hnsw", tmp_path / name, topics, 150))
    assert runs[0] == runs[1]
    scores, best = search.top_k(queries, matrix, 10)
    found = 0
    for n, (row, dots) in enumerate(zip(best.tolist(), scores.tolist(), strict=True)):
        hits = runs[0][f"q{n}"]
        assert len(hits) == 150
        exact = {f"d{d}": (1 + dot) / 2 for d, dot in zip(row, dots, strict=True)}
        both = exact.keys() & set(list(hits)[:10])
        assert {d: hits[d] for d in both} == pytest.approx(
            {d: exact[d] for d in both}, abs=1e-4
        )
        found += len(both)
    assert found >= 0.9 * 10 * len(queries)


def test_a_wrong_index_is_refused(corpus, bert, tmp_path, monkeypatch):
    """Anserini wants `docid`, and stops at a bad line, both with status 0."""
    encoder = DenseEncoder.load(str(bert))
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    index = tmp_path / "index"
    write = lucene.write_jsonl

    def with_id_alone(vectors, path):
        write(vectors, path)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [{"id": row["id"], "vector": row["vector"]} for row in rows]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in kept))

    def with_a_short_vector(vectors, path):
        write(vectors, path)
        lines = path.read_text().splitlines()
        lines[30] = '{"docid": "lamp", "vector": [1]}'
        path.write_text("\n".join(lines) + "\n")

    def with_each_others_vectors(vectors, path):
        write(replace(vectors, matrix=vectors.matrix.flip(0)), path)

    for wrong, message in (
        (with_id_alone, "indexed 0 of 48 .*NullPointerException"),
        # The indexer says 31.
        (with_a_short_vector, "indexed 30 of 48 .*expected '16', but it has '1'"),
        # The self-check's.
        (with_each_others_vectors, "does not find what we find: .* away; export anew"),
    ):
        monkeypatch.setattr(lucene, "write_jsonl", wrong)
        with pytest.raises(DenseHNError, match=message):
            lucene.export_lucene(vectors, index, "lucene-flat", encoder, str(bert))
        assert not index.exists()
