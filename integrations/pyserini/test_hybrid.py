"""hybrid.md's commands, as written, on a collection made in the test.

Their runs against what the page says that they compute, from the runs and vectors.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from replay import run_here

from dense_hn import bm25, mine, trec
from dense_hn.encode import encode_corpus, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.export.folder import write_index
from dense_hn.train import recipe
from dense_hn.train.places import Places

PAGE = Path(__file__).with_name("hybrid.md")


def commands() -> list[list[str]]:
    """The words of every command on the page, without `python -m`."""
    blocks = re.findall(r"^```\npython -m (.*)\n```$", PAGE.read_text(), re.MULTILINE)
    return [shlex.split(block) for block in blocks]


@pytest.fixture(scope="module")
def replayed(tmp_path_factory, bert, corpus, topics, qrels, pyserini_here):
    """The runs after the page's commands, query vectors and passage vectors."""
    root = tmp_path_factory.mktemp("hybrid")
    read = recipe.read("quickstart")
    places = Places(read, root, read.encoder["architecture"])
    encoder = DenseEncoder.load(str(bert))
    encoder.save(places.model("adore"))
    path = places.topics("test")
    trec.write_topics(path, topics)
    trec.write_qrels(places.qrels, qrels)
    vectors = encode_corpus(encoder, corpus, places.vectors("star"))
    index, lucene = places.index(places.passages("adore")), places.index("bm25")
    index.mkdir(parents=True)
    write_index(vectors, index, "flat", {})
    bm25.index(corpus, lucene)
    mine.mine(encoder, vectors, path, 1000, places.hits("adore", "test"), "ADORE")
    bm25.mine(lucene, path, 1000, places.hits("bm25", "test"), "BM25")
    runs = places.runs
    assert len(commands()) == 6
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for module, *arguments in commands():
            run_here(module, arguments)
    queries = encode_texts(encoder, list(topics.values()), "query").double().numpy()
    found = {p.name.split(".")[0]: trec.read_run(p) for p in runs.glob("*.test.txt")}
    return found, queries, vectors.matrix.double().numpy()


def assert_scores(run: trec.Run, expected: trec.Run) -> None:
    """Same topics and documents, scores to 1e-4."""
    assert run.keys() == expected.keys()
    for qid, scores in expected.items():
        assert run[qid] == pytest.approx(scores, abs=1e-4)


def test_hybrid_adds_the_scores(replayed):
    runs, _, _ = replayed
    expected = {}
    for qid, dense in runs["adore"].items():
        sparse = runs["bm25"][qid]
        expected[qid] = {
            docid: dense.get(docid, min(dense.values()))
            + 0.005 * sparse.get(docid, min(sparse.values()))
            for docid in dense.keys() | sparse.keys()
        }
    assert_scores(runs["hybrid"], expected)


def test_fusion_adds_the_inverse_ranks(replayed):
    runs, _, _ = replayed
    expected = {qid: {} for qid in runs["adore"]}
    for run in (runs["bm25"], runs["adore"]):
        for qid, hits in run.items():
            for rank, docid in enumerate(trec.ranked(hits), 1):
                fused = expected[qid]
                fused[docid] = fused.get(docid, 0) + 1 / (60 + rank)
    for qid, scores in expected.items():
        assert runs["rrf"][qid] == pytest.approx(scores, abs=1e-9)
    assert any(len(hits) < 48 for hits in runs["bm25"].values())


def feedback(replayed, corpus, depth, query_weight, passages_weight) -> trec.Run:
    """Second search with a weighted sum of the query and the mean of its first hits."""
    runs, queries, passages = replayed
    expected = {}
    for qid, query in zip(runs["adore"], queries, strict=True):
        first = np.argsort(-(passages @ query))[:depth]
        moved = query_weight * query + passages_weight * passages[first].mean(axis=0)
        expected[qid] = dict(zip(corpus, (passages @ moved).tolist(), strict=True))
    return expected


def test_avg_is_the_mean_of_the_query_and_three_hits(replayed, corpus):
    expected = feedback(replayed, corpus, 3, 1 / 4, 3 / 4)
    assert_scores(replayed[0]["avg"], expected)


def test_rocchio_weighs_the_query_and_five_hits(replayed, corpus):
    expected = feedback(replayed, corpus, 5, 0.4, 0.6)
    assert_scores(replayed[0]["rocchio"], expected)
