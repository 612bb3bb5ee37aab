"""Topics, qrels, runs: round trips, trec_eval's order, and clear refusals."""

import gzip
import itertools

import pytest
import pytrec_eval

from dense_hn import DenseHNError, trec


def test_round_trips(tmp_path, topics, qrels, run):
    trec.write_topics(tmp_path / "topics", topics)
    trec.write_qrels(tmp_path / "qrels", qrels)
    trec.write_run(tmp_path / "run", run, "tag")
    assert trec.read_topics(tmp_path / "topics") == topics
    assert trec.read_qrels(tmp_path / "qrels") == qrels
    assert trec.read_run(tmp_path / "run") == run
    first = (tmp_path / "run").read_text().splitlines()[0].split()
    assert first[1] == "Q0"
    assert first[3] == "1"
    assert first[5] == "tag"


def test_gzipped_files_are_read(tmp_path, run):
    trec.write_run(tmp_path / "run", run, "tag")
    packed = gzip.compress((tmp_path / "run").read_bytes())
    (tmp_path / "run.gz").write_bytes(packed)
    assert trec.read_run(tmp_path / "run.gz") == run
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DenseHNError, match="cut.gz: broken gzip"):
        trec.read_run(tmp_path / "cut.gz")


@pytest.mark.parametrize("height", [0.0, 0.5, 61.3, -3000.7])
def test_written_order_is_the_order_that_trec_eval_scores(tmp_path, height):
    """Ties, and gaps too small for trec_eval's 32-bit floats, stay in written order."""
    docids = [f"d{n:02}" for n in range(40)]
    hits = {d: height + 1e-7 * (n // 3) for n, d in enumerate(docids)}
    trec.write_run(tmp_path / "run", {"q": hits}, "tag")
    rows = [line.split() for line in (tmp_path / "run").read_text().splitlines()]
    scores = [float(row[4]) for row in rows]
    assert all(above > below for above, below in itertools.pairwise(scores))
    assert (
        max(abs(s - hits[row[2]]) for s, row in zip(scores, rows, strict=True)) < 0.05
    )
    run = trec.read_run(tmp_path / "run")
    for rank, row in enumerate(rows, 1):
        evaluator = pytrec_eval.RelevanceEvaluator({"q": {row[2]: 1}}, {"recip_rank"})
        assert evaluator.evaluate(run)["q"]["recip_rank"] == pytest.approx(1 / rank)


def test_ranked_is_trec_evals_order():
    """Each document relevant in turn: trec_eval's reciprocal rank gives its place."""
    hits = {"b": 1.0, "a": 1.0, "d": 60.000001, "c": 60.0, "e": -2.0, "f": 60.1}
    place = {}
    for docid in hits:
        evaluator = pytrec_eval.RelevanceEvaluator({"q": {docid: 1}}, {"recip_rank"})
        place[docid] = round(1 / evaluator.evaluate({"q": hits})["q"]["recip_rank"])
    assert trec.ranked(hits) == sorted(place, key=place.get)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["q a 1 3.0", "q b 2 2.0", "p c 1 9.0"], None),
        # Ties, and the same rank for all, contradict nothing.
        (["q a 1 3.0", "q b 2 3.0", "q c 2 1.0", "q d 2 2.0"], None),
        # The best last.
        (["q a 2 2.0", "q b 1 3.0"], None),
        (["q a 1.0 2.0", "q b x 3.0"], None),
        (["q a 1 3.0", "q b 2 2.0", "q c 3 2.5", "q d 4 2.7"], (3, 2)),
        (["p a 1 1.0", "q a 3 1.0", "q b 2 0.5"], (3, 1)),
    ],
)
def test_ranks_that_contradict_scores_are_told(tmp_path, caplog, lines, told):
    rows = [line.split() for line in lines]
    text = "".join(
        f"{q} Q0 {docid} {rank} {score} t\n" for q, docid, rank, score in rows
    )
    (tmp_path / "run").write_text(text)
    run = trec.read_run(tmp_path / "run")
    assert [(q, d) for q, hits in run.items() for d in hits] == [
        (q, d) for q, d, _, _ in rows
    ]
    messages = [record.getMessage() for record in caplog.records]
    if told is None:
        assert messages == []
    else:
        (message,) = messages
        assert message.startswith(
            f"{tmp_path / 'run'}:{told[0]}: the ranks of this line"
        )
        assert f"as on {told[1]} lines of the file" in message


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (trec.read_topics, "q1\tone\n\nq2\ttwo\n", ":2: empty line"),
        (trec.read_topics, "q1\tone\nq2 two\n", ":2: expected `qid<TAB>text`"),
        (trec.read_topics, "q1\tone\nq2\t \n", ":2: query 'q2' has no text"),
        (trec.read_topics, "q1\tone\ntwo\tis\tlost\n", ":2: a second tab"),
        (trec.read_topics, "q1\t\ttwo\n", ":1: a second tab"),
        (trec.read_topics, "q1\t\xa0\x01\n", ":1: query 'q1' has no text"),
        (trec.read_topics, "q1\tone\rtwo\n", ":1: a carriage return or byte order"),
        (trec.read_topics, "\ufeffq1\tone\n", ":1: a carriage return or byte order"),
        (trec.read_topics, "q1\tone\nq1\ttwo\n", ":2: query id 'q1' occurs twice"),
        (trec.read_topics, "q 1\tone\n", ":1: query id 'q 1' is empty or has white"),
        (trec.read_topics, "", "no topics in this file"),
        (trec.read_qrels, "q 0 d 1\nq 0 e\n", ":2: expected 4 columns"),
        (trec.read_qrels, "q 0 d 1\nq 0 d 2\n", ":2: 'd' is judged 1 and 2 for"),
        (trec.read_qrels, "q 0 d high\n", ":1: relevance 'high' is not a whole"),
        (trec.read_run, "q Q0 d 1 2.0 t\nq Q0 e 2 1.0\n", ":2: expected 6 columns"),
        (trec.read_run, "q Q0 d 1 2.0 t\nq Q0 d 2 1.0 t\n", ":2: 'd' is listed twice"),
        (trec.read_run, "q Q0 d 1 nan t\n", ":1: score 'nan' is not a finite"),
        (trec.read_run, "q Q0 d 1 high t\n", ":1: score 'high' is not a finite"),
    ],
)
def test_refusals_name_file_and_line(tmp_path, read, text, message):
    path = tmp_path / "given.txt"
    path.write_text(text)
    with pytest.raises(DenseHNError) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_refuses_other_encodings_and_missing_files(tmp_path):
    (tmp_path / "latin").write_bytes("q\tcaf\xe9\n".encode("latin-1"))
    with pytest.raises(DenseHNError, match="latin: not UTF-8"):
        trec.read_topics(tmp_path / "latin")
    with pytest.raises(DenseHNError, match="topics not found"):
        trec.read_topics(tmp_path / "absent")
    with pytest.raises(DenseHNError, match="run: this is a folder"):
        trec.read_run(tmp_path)


@pytest.mark.parametrize("tag", ["my run", "", "a\tb"])
def test_a_tag_that_columns_cannot_hold_is_refused(tmp_path, tag):
    with pytest.raises(DenseHNError, match=r"run: tag .* is empty or has white space"):
        trec.write_run(tmp_path / "run", {"q": {"d": 1.0}}, tag)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "run"
    trec.write_run(path, {"q": {"d": 1.0}}, "tag")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="high"):
        trec.write_run(path, {"p": {"e": 1.0}, "q": {"d": "high"}}, "tag")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
