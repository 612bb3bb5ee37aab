"""Documents cut into passages: worked by hand, and trained on."""

import json
import re
import sys
from functools import partial

import pytest
import torch

from dense_hn import DenseHNError, maxp, trec
from dense_hn.check import ids
from dense_hn.collections import passages, sources
from dense_hn.collections.collection import Collection
from dense_hn.collections.corpus import Corpus, read_corpus
from dense_hn.encode import encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.evaluate import __main__ as evaluate
from dense_hn.train import commands
from dense_hn.train.evaluation import EvaluationArguments, Evaluator, encode_share
from dense_hn.train.query_batches import without
from dense_hn.train.supervision import Supervision, SupervisionArguments

QRELS = {"q": {"a": 2, "b": 1, "c": 0}}


def made(**texts: str) -> Collection:
    """A collection of these documents, with one topic."""
    return Collection(
        corpus=texts, topics={"train": {"q": "what"}}, qrels={"train": QRELS}
    )


def test_documents_are_cut_and_their_judgements_are_all_their_passages():
    # Five words by three with one over: 1-3 and 3-5; six: another, of the rest; three: one.
    cut = passages.cut(made(a="1 2 3 4 5", b="1 2 3 4 5 6", c="1  2\n3"), 3, 1)
    assert cut.corpus == {
        "a#0": "1 2 3",
        "a#1": "3 4 5",
        "b#0": "1 2 3",
        "b#1": "3 4 5",
        "b#2": "5 6",
        "c#0": "1 2 3",
    }
    assert cut.qrels["train"]["q"] == {
        "a#0": 2,
        "a#1": 2,
        "b#0": 1,
        "b#1": 1,
        "b#2": 1,
        "c#0": 0,
    }
    assert cut.topics == {"train": {"q": "what"}}


def test_a_document_without_text_is_counted(tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    documents = [
        {"_id": "a", "title": "T", "text": "1 2 3"},
        {"_id": "b", "text": " "},
    ]
    for name, rows in (("corpus", documents), ("queries", [{"_id": "q", "text": "x"}])):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (folder / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq\ta\t1\nq\tb\t1\n"
    )
    spec = "passages:{of: {beir: {folder: FOLDER, titles: TITLES}}, words: 2}"
    for titles, expected in (
        ("true", {"a#0": "T 1", "a#1": "2 3"}),
        ("false", {"a#0": "1 2", "a#1": "3"}),
    ):
        source = spec.replace("FOLDER", str(folder)).replace("TITLES", titles)
        sources.build(*sources.parse(source), tmp_path / titles)
        assert read_corpus(tmp_path / titles / "corpus" / "corpus.jsonl") == expected
        qrels = trec.read_qrels(tmp_path / titles / "qrels.test.txt")
        assert qrels == {"q": dict.fromkeys(expected, 1)}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{words: 3}", "expected {of: "),
        ("{of: {beir: x}, words: 3, step: 1}", "passages: unknown key 'step'; there"),
        ("{of: {beir: x}, word: 3}", "did you mean 'words'"),
        ("7", "expected {of: .*, got 7"),
        ("{of: {beir: }, words: 3}", "expected {of: "),
        ("{of: {beir: {folder: x, title: no}}, words: 3}", "did you mean 'titles'"),
        ("{of: {bier: x}, words: 3}", "unknown source 'bier'; did you mean 'beir'"),
        ("{of: {folder: x}, words: 3}", "unknown source 'folder'"),
        ("{of: {beir: x}}", "words is 0 and overlap 0"),
        ("{of: {beir: x}, words: 3, overlap: 3}", "an overlap below it"),
        ("{of: {beir: x}, words: 2.5}", "whole numbers"),
        ("{of: {beir: 7}, words: 3}", "expected a path, got 7; quote it"),
    ],
)
def test_other_forms_are_refused(spec, message):
    with pytest.raises(DenseHNError, match=message):
        sources.splits(*sources.parse(f"passages:{spec}"))


def test_a_document_whose_id_looks_like_a_passages_is_refused():
    with pytest.raises(DenseHNError, match="docid 'x#1' has a #"):
        passages.cut(Collection(corpus={"x#1": "a"}, topics={}, qrels={}), 3, 0)


def test_a_document_has_what_its_best_passage_has():
    hits = {"b#2": 3.0, "a#0": 2.5, "b#0": 2.0, "c": 1.0, "a#1": 2.75}
    found = maxp.of_documents({"q": hits, "r": {}})
    assert found == {"q": {"b": 3.0, "a": 2.75, "c": 1.0}, "r": {}}


def test_the_best_passage_of_each_relevant_document_is_meant():
    qrels = {"q": {"a#0": 1, "a#1": 1, "b#0": 2, "b#1": 2, "c#0": 0, "d": 1}, "r": {}}
    run = {"q": {"a#1": 0.5, "c#0": 0.9, "a#0": 0.4, "d": 0.1}}
    # Of b the run says nothing.
    kept = {"q": {"a#1": 1, "b#0": 2, "b#1": 2, "d": 1}, "r": {}}
    assert maxp.meant(qrels, [run]) == (kept, 1)
    # Another does, and is asked of nothing else.
    second = {"q": {"b#1": 0.1, "a#0": 0.9}}
    kept["q"] = {"a#1": 1, "b#1": 2, "d": 1}
    assert maxp.meant(qrels, [run, second]) == (kept, 0)


def test_ranked_rows_close_up():
    rows = torch.tensor([[5, 3, 9, 1], [2, 4, -1, -1]])
    others = torch.tensor([[3, 7, 5], [-1, -1, -1]])
    assert without(rows, others).tolist() == [[9, 1, -1, -1], [2, 4, -1, -1]]
    assert without(rows, torch.empty(2, 0)).tolist() == rows.tolist()


def test_training_leaves_the_other_passages_alone(tmp_path):
    """They are neither relevant nor negatives, whatever their rank."""
    trec.write_topics(tmp_path / "topics.tsv", {"q": "x", "r": "y"})
    qrels = {"q": {"a#0": 1, "a#1": 1, "a#2": 1}, "r": {"b#0": 1}}
    trec.write_qrels(tmp_path / "qrels.txt", qrels)
    run = {"q": {"b#0": 4.0, "a#1": 3.0, "a#2": 2.0, "a#0": 1.0}, "r": {"a#2": 1.0}}
    trec.write_run(tmp_path / "run.txt", run, "x")
    given = ["--corpus", "x", "--encoder", "x", "--output_dir", str(tmp_path / "out")]
    given += ["--topics", str(tmp_path / "topics.tsv")]
    given += ["--qrels", str(tmp_path / "qrels.txt")]
    given += ["--negatives", str(tmp_path / "run.txt"), "--max_steps", "1"]
    given += ["--positives", str(tmp_path / "run.txt"), "--judged_only", "true"]
    supervision = Supervision(commands.parse("star", given)[0])
    assert supervision.qrels == {"q": {"a#1": 1}, "r": {"b#0": 1}}
    assert supervision.others == {"q": {"a#0", "a#2"}, "r": set()}
    assert supervision.excluded == {"q": {"a#0", "a#1", "a#2"}, "r": {"b#0"}}
    # What no topic asks for is no negative of another, either.
    assert supervision.pool(["a#0", "a#1", "a#2", "b#0"]) == ["a#1", "b#0"]
    # What a filter looks at has none of them.
    assert supervision.without_others(run)["q"] == {"b#0": 4.0, "a#1": 3.0}


def test_a_run_of_documents_tells_of_no_passage(tmp_path):
    trec.write_topics(tmp_path / "topics.tsv", {"q": "x"})
    trec.write_qrels(tmp_path / "qrels.txt", {"q": {"a#0": 1, "a#1": 1}})
    trec.write_run(tmp_path / "run.txt", {"q": {"a": 1.0}}, "x")
    given = SupervisionArguments(
        topics=str(tmp_path / "topics.tsv"),
        qrels=str(tmp_path / "qrels.txt"),
        positives=[str(tmp_path / "run.txt")],
    )
    with pytest.raises(DenseHNError, match="no relevant passage of any topic"):
        Supervision(given)


def test_answers_are_not_looked_for_in_documents(monkeypatch):
    argv = ["evaluate", "--answers", "a", "--corpus", "c", "--max_passage", "run"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(DenseHNError, match="--max_passage: Answer@1 looks for"):
        evaluate.main()


def test_dev_topics_are_scored_by_document_while_training(files, bert, tmp_path):
    """An encoder's mean over documents, from all passages' scores."""
    texts = read_corpus(files["corpus"])
    corpus = Corpus.of({f"{n // 3}#{n % 3}": t for n, t in enumerate(texts.values())})
    topics = trec.read_topics(files["topics"])
    qrels = {qid: {f"{n % 16}#1": 1} for n, qid in enumerate(topics)}
    for docids in qrels.values():
        docids |= {docid.replace("#1", "#2"): 1 for docid in list(docids)}
    trec.write_qrels(tmp_path / "dev.txt", qrels)
    encoder = DenseEncoder.load(str(bert))
    matrix = encode_texts(encoder, list(corpus.values()), "passage").double()
    queries = encode_texts(encoder, list(topics.values()), "query").double()
    best = (queries @ matrix.T).reshape(len(topics), 16, 3).amax(dim=2)
    expected = [1 / (1 + int((of > of[n % 16]).sum())) for n, of in enumerate(best)]
    args = EvaluationArguments(
        eval_topics=str(files["topics"]),
        eval_qrels=str(tmp_path / "dev.txt"),
        eval_measures=["RR@16"],
        eval_training_topics=0,
        eval_max_passage=True,
    )
    whole = partial(encode_share, corpus=corpus, share=1, seed=1)
    evaluator = Evaluator(args, topics, qrels, 1, corpus, whole)
    assert evaluator(encoder)["RR@16"] == pytest.approx(sum(expected) / len(expected))


def test_passages_are_scored_as_documents(tmp_path, monkeypatch, capsys):
    """q's document is second (1 / 2), r's first; as passages q's best one is third."""
    qrels = {"q": {"a#0": 1, "a#1": 1}, "r": {"b": 1}}
    trec.write_qrels(tmp_path / "qrels.txt", qrels)
    run = {"q": {"c#4": 3.0, "c#0": 2.0, "a#1": 1.0}, "r": {"b#7": 1.0}}
    trec.write_run(tmp_path / "run.txt", run, "x")
    argv = ["evaluate", "--qrels", str(tmp_path / "qrels.txt"), "--max_passage"]
    argv += [str(tmp_path / "run.txt"), "--measures", "RR@10"]
    monkeypatch.setattr(sys, "argv", argv)
    evaluate.main()
    assert re.search(r"^run +0\.7500$", capsys.readouterr().out, re.MULTILINE)


def test_documents_that_are_scored_as_passages_are_told_of(
    tmp_path, monkeypatch, capsys, caplog
):
    trec.write_qrels(tmp_path / "qrels.txt", {"q": {"a#0": 1}})
    trec.write_run(tmp_path / "run.txt", {"q": {"a": 1.0}}, "x")
    argv = [
        "evaluate",
        "--qrels",
        str(tmp_path / "qrels.txt"),
        str(tmp_path / "run.txt"),
    ]
    for flags, told in (([], True), (["--max_passage"], False)):
        caplog.clear()
        monkeypatch.setattr(sys, "argv", [*argv, *flags])
        evaluate.main()
        assert any("--max_passage" in line for line in caplog.messages) is told


def test_a_check_takes_runs_of_documents():
    cut = passages.cut(made(a="1 2 3 4 5", b="1", c="2"), 3, 1)
    for docid, unknown in (("a", 0), ("a#1", 0), ("d", 1)):
        found = ids.of_run(cut, "run", {"q": {docid: 1.0}})
        counts = {finding.name: finding.count for finding in found}
        assert counts["documents not in the corpus: run"] == unknown
