"""A recipe of long documents as passages, against Pyserini's --max-passage and float64."""

import random
import shlex

import pytest
import torch
from compare_runs import compare
from replay import run_here

from dense_hn import DenseHNError, trec
from dense_hn.collections.corpus import read_corpus, write_corpus
from dense_hn.encode import encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.report import comparison
from dense_hn.train import recipe
from dense_hn.train.pipeline import Pipeline
from dense_hn.train.supervision import Supervision

HITS = 40
WEIGHT = 0.5


@pytest.fixture(scope="module")
def documents(corpus):
    """The made corpus, longer: no two passages alike, so that no scores are, and no word of a
    document twice, so that what two passages share is where they overlap."""
    known = sorted({word for text in corpus.values() for word in text.split()})
    draw = random.Random(3)
    return {
        docid: " ".join(dict.fromkeys([*text.split(), *draw.sample(known, len(known))]))
        for docid, text in corpus.items()
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory, split_folder_in, documents, bert, pyserini_here):
    """A small recipe that has run."""
    root = tmp_path_factory.mktemp("passages")
    made = split_folder_in(root)
    write_corpus(made / "corpus" / "corpus.jsonl", documents)
    files = ", ".join(
        f"{split}: [{made}/topics.{split}.tsv, {made}/qrels.{split}.txt]"
        for split in ("train", "dev", "test")
    )
    steps = "max_steps: 2, use_cpu: true, positives: base"
    path = root / "small.yaml"
    path.write_text(
        "collection: {passages: {of: {files: {corpus: "
        f"{made}/corpus/corpus.jsonl, {files}}}}}, words: 5, overlap: 1}}}}\n"
        f"encoder: {{source: {bert}, document_weight: {WEIGHT}, document_length: 60}}\nevaluate: {{hits: {HITS}, measures: [RR@10]}}\n"
        f"star: {{{steps}, negatives: [base]}}\nadore: {{{steps}, judged_only: true}}\n"
    )
    pipeline = Pipeline(recipe.read(str(path)), root)
    pipeline.run()
    return pipeline, made


def test_the_corpus_is_cut_and_the_table_is_max_passage(trained, corpus, qrels):
    pipeline, made = trained
    assert len(read_corpus(pipeline.corpus)) > len(corpus)
    assert trec.read_qrels(pipeline.qrels) == trec.read_qrels(made / "qrels.test.txt")
    for system in ("bm25", "base", "star", "adore"):
        run = trec.read_run(pipeline.hits(system, "test"))
        assert set().union(*run.values()) <= corpus.keys()
    # What is trained on is of passages.
    hits = trec.read_run(pipeline.hits("base", "train"))
    assert all("#" in docid for found in hits.values() for docid in found)


def test_a_card_says_that_documents_are_in_the_vectors(trained):
    pipeline, _ = trained
    card = (pipeline.model("star") / "README.md").read_text()
    said = " ".join(card.split())
    assert f"has {WEIGHT} times that of its document in it (cut at 60 tokens)" in said


def test_documents_have_the_scores_of_their_best_passages(trained):
    pipeline, _ = trained
    texts = read_corpus(pipeline.corpus)
    topics = trec.read_topics(pipeline.topics("test"))
    documents = DenseEncoder.load(str(pipeline.model("star")))
    own = encode_texts(documents, list(texts.values()), "passage").double()
    # Passages share a word with the one before.
    words = {}
    for docid, text in texts.items():
        name, _, number = docid.partition("#")
        words.setdefault(name, []).extend(text.split()[int(number != "0") :])
    whole = [" ".join(words[docid.split("#")[0]]) for docid in texts]
    longer = DenseEncoder.load(str(pipeline.model("star")), passage_length=60)
    wholes = encode_texts(longer, whole, "passage").double()
    matrix = torch.nn.functional.normalize(own + WEIGHT * wholes)
    queries = DenseEncoder.load(str(pipeline.model("adore")))
    run = trec.read_run(pipeline.hits("adore", "test"))
    for qid, text in topics.items():
        scores = matrix @ encode_texts(queries, [text], "query").double()[0]
        found = sorted(zip(scores.tolist(), texts, strict=True), reverse=True)[:HITS]
        best = {}
        for score, passage in found:
            best.setdefault(passage.split("#")[0], score)
        assert run[qid] == pytest.approx(best, abs=1e-4)
        assert len(best) < HITS


def test_pyserini_makes_the_same_run(trained, monkeypatch):
    pipeline, _ = trained
    monkeypatch.chdir(pipeline.root)
    lines = pipeline.report().splitlines()
    line = lines[lines.index("adore in Pyserini:") + 1]
    assert "--max-passage --max-passage-hits 40" in line
    run_here("dense_hn.pyserini", shlex.split(line)[3:])
    ours = pipeline.hits("adore", "test")
    theirs = ours.with_name(f"pyserini-{ours.name}")
    found = compare(trec.read_run(ours), trec.read_run(theirs), HITS)
    assert found["topics"] == 6
    assert found["docids_in_one"] == found["topics_in_one"] == 0
    assert found["largest"] < 1e-4


def test_pyserini_makes_the_same_run_of_bm25(trained):
    pipeline, _ = trained
    ours = pipeline.hits("bm25", "test")
    theirs = ours.with_name("pyserini-bm25.test.txt")
    line = f"search.lucene --index {pipeline.index('bm25')} --output {theirs} --bm25"
    line += f" --topics {pipeline.topics('test')} --hits {HITS} --max-passage"
    run_here("dense_hn.pyserini", [*line.split(), "--max-passage-hits", str(HITS)])
    found = compare(trec.read_run(ours), trec.read_run(theirs), HITS)
    assert found["topics"] == 6
    assert found["docids_in_one"] == found["topics_in_one"] == 0
    assert found["largest"] < 1e-4


def test_a_report_shows_how_documents_start(trained, documents):
    pipeline, _ = trained
    shown = comparison.compare(pipeline, 2).texts
    assert shown
    for docid, text in shown.items():
        words = documents[docid].split()
        assert text == " ".join([*words[:5], "…"])


def test_what_trains_is_told_which_passages_are_meant(trained):
    """Dev topics are scored by document while training, and the others are left out."""
    pipeline, _ = trained
    args, _ = pipeline.trainings["adore"].arguments
    assert args.positives == [str(pipeline.hits("base", "train"))]
    others = Supervision(args).others
    judged = trec.read_qrels(pipeline.judged("train"))
    assert {qid: len(of) for qid, of in others.items()} == {
        qid: len(of) - len({docid.split("#")[0] for docid in of})
        for qid, of in judged.items()
    }
    path = pipeline.root / "small.yaml"
    more = ["adore.eval_strategy=steps", "adore.eval_steps=1"]
    evaluated = Pipeline(recipe.read(str(path), more), pipeline.root)
    assert evaluated.trainings["adore"].arguments[0].eval_max_passage


def test_a_cross_encoder_is_refused(trained, bert):
    pipeline, _ = trained
    path = pipeline.root / "small.yaml"
    with pytest.raises(
        DenseHNError, match="rerank: .* runs of passages list their doc"
    ):
        Pipeline(recipe.read(str(path), [f"rerank.model={bert}"]), pipeline.root)
