"""Every stage of nq.yaml, on a small collection laid out as DPR's files are."""

import gzip
import json

import pytest

from dense_hn import trec
from dense_hn.collections.corpus import read_corpus
from dense_hn.train import recipe
from dense_hn.train.pipeline import Pipeline

SMALL = [
    f"{stage}.{setting}"
    for stage in ("warmup", "star", "adore")
    for setting in ("max_steps=2", "per_device_train_batch_size=4", "use_cpu=true")
]
SMALL += ["warmup.fp16=false", "star.fp16=false", "adore.adore_hits=20"]
SMALL += ["encoder.passage_length=32", "evaluate.hits=30"]


def context(docid: str, text: str) -> dict:
    return {"title": docid, "text": text, "score": 9.5, "passage_id": docid}


@pytest.fixture
def downloads(tmp_path, corpus, topics, qrels, run):
    """The files that nq.md downloads, with the collection of conftest.py in them."""
    passages = [f'{docid}\t"{text}"\t{docid}\n' for docid, text in corpus.items()]
    packed = gzip.compress("".join(["id\ttext\ttitle\n", *passages]).encode())
    (tmp_path / "psgs_w100.tsv.gz").write_bytes(packed)
    entries = [
        {
            "dataset": "nq",
            "question": text,
            "answers": ["x"],
            "positive_ctxs": [context(docid, corpus[docid]) for docid in qrels[qid]],
            "negative_ctxs": [],
            "hard_negative_ctxs": [context(docid, corpus[docid]) for docid in run[qid]],
        }
        for qid, text in topics.items()
    ]
    for split, part in (("train", entries[:16]), ("dev", entries[16:])):
        path = tmp_path / f"biencoder-nq-{split}.json.gz"
        path.write_bytes(gzip.compress(json.dumps(part, indent=4).encode()))
    (tmp_path / "nq-test.qa.csv").write_text("who is the door\t['red', \"it's\"]\n")
    return tmp_path


@pytest.mark.usefixtures("pyserini_here")
def test_every_stage(downloads, roberta, corpus, topics, qrels, run, monkeypatch):
    monkeypatch.chdir(downloads)
    changes = [*SMALL, f"encoder.source={roberta}"]
    pipeline = Pipeline(recipe.read("nq", changes), downloads)
    pipeline.run()
    made = downloads / "work" / "nq" / "collection"
    assert read_corpus(made / "corpus" / "corpus.jsonl") == {
        docid: f"{docid} {text.strip()}" for docid, text in corpus.items()
    }
    qids = list(topics)
    assert trec.read_topics(made / "topics.train.tsv") == {
        f"train-{n}": topics[qid] for n, qid in enumerate(qids[:16])
    }
    assert trec.read_qrels(made / "qrels.dev.txt") == {
        f"dev-{n}": dict.fromkeys(qrels[qid], 1) for n, qid in enumerate(qids[16:])
    }
    hard = trec.read_run(made / "run.hard.train.txt")
    for n, qid in enumerate(qids[:16]):
        assert trec.ranked(hard[f"train-{n}"]) == trec.ranked(run[qid])
    assert trec.read_topics(made / "topics.test.tsv") == {"test-0": "who is the door"}

    report = pipeline.report()
    assert "8 topics" in report
    table = json.loads((downloads / "runs/nq/table.dev.json").read_text())
    systems = [row["name"] for row in table["rows"]]
    assert systems == ["BM25", "warmup", "star", "adore"]
    assert not (made.parent / "vectors" / "base").exists()
    assert (made.parent / "indexes" / "star" / "docid").read_text().split()[0] == (
        "red-lamp"
    )
