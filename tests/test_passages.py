"""Documents cut into passages: worked by hand, and trained on."""

import json
import re
import sys
from functools import partial
from itertools import pairwise

import pytest
import torch

from dense_hn import DenseHNError, maxp, trec
from dense_hn.check import ids
from dense_hn.collections import passages, sources
from dense_hn.collections.collection import Collection
from dense_hn.collections.corpus import Corpus, read_corpus, write_corpus
from dense_hn.encode import encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.evaluate import __main__ as evaluate
from dense_hn.train import arguments, commands, recipe
from dense_hn.train.evaluation import EvaluationArguments, Evaluator, encode_share
from dense_hn.train.hard_negatives import material
from dense_hn.train.pipeline import Pipeline
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


def test_a_passage_among_its_neighbours():
    """By hand; a number that is missing is passed over."""
    corpus = {"a#0": "1 2 3", "a#1": "3 4 5", "a#2": "5 6", "b#0": "x  y", "c": "z"}
    corpus |= {"a#9": "9", "a#10": "10 9", "a#11": "11"}
    expected = {
        ("a#0", 1): "1 2 3 4 5",
        ("a#1", 1): "1 2 3 4 5 6",
        ("a#2", 1): "3 4 5 6",
        ("a#2", 0): "5 6",
        ("a#0", 2): "1 2 3 4 5 6",
        ("b#0", 1): "x  y",
        ("c", 1): "z",
        ("a#10", 1): "9 10 9 11",
        ("a#9", 1): "9 10 9",
        # No number of ours.
        ("a#01", 1): "other",
        ("a#x", 1): "x",
    }
    corpus |= {"a#01": "other", "a#x": "x"}
    for (docid, number), text in expected.items():
        assert maxp.among_neighbours(corpus, docid, number) == text


def test_training_among_neighbours_is_training_on_longer_texts(
    files, corpus, qrels, run, bert, tmp_path
):
    """The weights are those of texts that are joined beforehand; searched alone."""
    own = list(corpus.values())
    place = {docid: f"d{n}#1" for n, docid in enumerate(corpus)}
    texts, joined = {}, {}
    for n, text in enumerate(own):
        parts = [own[n - 1], text, own[n - 2]]
        # So that none of their words are taken for an overlap.
        assert all(one.split()[-1] != more.split()[0] for one, more in pairwise(parts))
        for number, part in enumerate(parts):
            texts[f"d{n}#{number}"] = part
            around = parts[max(number - 1, 0) : number + 2]
            joined[f"d{n}#{number}"] = " ".join(around)
    write_corpus(tmp_path / "alone.jsonl", texts)
    write_corpus(tmp_path / "joined.jsonl", joined)
    for name, table, write in (
        ("qrels", qrels, trec.write_qrels),
        ("run", run, trec.write_run),
    ):
        moved = {q: {place[d]: v for d, v in row.items()} for q, row in table.items()}
        write(tmp_path / name, moved, *(["x"] if name == "run" else []))
    given = {
        "encoder": bert,
        "topics": files["topics"],
        "qrels": tmp_path / "qrels",
        "negatives": tmp_path / "run",
        "max_steps": 2,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "passage_length": 9,
        "use_cpu": True,
    }
    made = {}
    for name, number in (("alone", 1), ("joined", 0), ("alone", 0)):
        told = {
            "corpus": tmp_path / f"{name}.jsonl",
            "output_dir": tmp_path / f"{name}{number}",
            "neighbours": number,
        }
        commands.train("star", arguments.argv_of(given | told))
        made[name, number] = DenseEncoder.load(str(tmp_path / f"{name}{number}"))
    digests = {key: encoder.digest() for key, encoder in made.items()}
    assert digests["alone", 1] == digests["joined", 0] != digests["alone", 0]


def test_what_stands_beside_a_relevant_passage_is_no_negative(tmp_path):
    """Its text would have the relevant one's in it; the next but one has not."""
    write_corpus(tmp_path / "corpus.jsonl", {f"a#{n}": f"word {n}" for n in range(5)})
    trec.write_topics(tmp_path / "topics.tsv", {"q": "x", "r": "y"})
    trec.write_qrels(tmp_path / "qrels.txt", {"q": {"a#1": 1}, "r": {"a#4": 1}})
    run = {qid: {f"a#{n}": 9.0 - n for n in range(5)} for qid in "qr"}
    trec.write_run(tmp_path / "run.txt", run, "x")
    given = {"encoder": "x", "output_dir": tmp_path / "out", "max_steps": 1}
    given |= {"corpus": tmp_path / "corpus.jsonl", "topics": tmp_path / "topics.tsv"}
    given |= {"qrels": tmp_path / "qrels.txt", "negatives": tmp_path / "run.txt"}
    args, _ = commands.parse("star", arguments.argv_of(given))
    for number, left in ((0, {0, 2, 3, 4}), (1, {3, 4}), (2, {4})):
        supervision, _, hard, random = material(args, 1, number)
        assert supervision.excluded["q"] == {f"a#{n}" for n in set(range(5)) - left}
        drawn = {d for e in range(20) for d in hard.sources()[0].draw("q", e)}
        assert drawn == {f"a#{n}" for n in left}
        assert isinstance(random.draw("q", 0), list)


def test_passages_that_lose_their_end_are_told_of(files, bert, tmp_path, caplog):
    texts = {f"d#{n}": f"w{n} and more of it" for n in range(3)}
    write_corpus(tmp_path / "corpus.jsonl", texts)
    qids = list(trec.read_topics(files["topics"]))
    qrels = {qid: {f"d#{n % 3}": 1} for n, qid in enumerate(qids)}
    trec.write_qrels(tmp_path / "qrels.txt", qrels)
    given = {"encoder": bert, "output_dir": tmp_path / "out", "neighbours": 1}
    given |= {"corpus": tmp_path / "corpus.jsonl", "topics": files["topics"]}
    given |= {"qrels": tmp_path / "qrels.txt", "max_steps": 1, "use_cpu": True}
    # Five words of a passage, ten or fifteen with its neighbours, and two tokens around them.
    for length, cut in ((11, 3), (12, 1), (17, 0)):
        caplog.clear()
        told = {"passage_length": length, "per_device_train_batch_size": 2}
        commands.train("warmup", arguments.argv_of(given | told))
        said = [line for line in caplog.messages if line.startswith("neighbours: ")]
        expected = f"neighbours: {cut} of 3 passages, with theirs, have more than"
        assert [line.startswith(expected) for line in said] == [True] * bool(cut)


def test_neighbours_are_refused_where_they_mean_nothing(files, bert, tmp_path):
    given = {"encoder": bert, "output_dir": tmp_path / "out", "neighbours": 1}
    given |= {name: files[name] for name in ("corpus", "topics", "qrels")}
    given |= {"max_steps": 1, "use_cpu": True}
    for stage, message in (
        ("warmup", "corpus.jsonl: neighbours are of documents"),
        ("dynamic", "neighbours: here a step's passages are searched"),
    ):
        with pytest.raises(DenseHNError, match=message):
            commands.train(stage, arguments.argv_of(given))
    with pytest.raises(DenseHNError, match="neighbours is -1"):
        commands.parse("warmup", arguments.argv_of(given | {"neighbours": -1}))
    taught = {"distil": "kl", "teacher": "run.txt"}
    with pytest.raises(DenseHNError, match="neighbours: a teacher scored passages"):
        commands.parse("warmup", arguments.argv_of(given | taught))


def test_a_recipe_of_documents_that_are_not_cut_is_refused_at_once(
    small_recipe, tmp_path
):
    """Before anything is encoded."""
    changes = ["star.neighbours=1"]
    with pytest.raises(DenseHNError, match="corpus.jsonl: neighbours are of documents"):
        Pipeline(recipe.read(str(small_recipe), changes), tmp_path).run()
    made = tmp_path / "work" / "small"
    assert not (made / "vectors").exists()
    assert not (made / "models").exists()
