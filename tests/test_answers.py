"""Answers in passages, against Pyserini's own scripts and by hand."""

import gzip
import json
import random
import re
import runpy
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyserini.eval import evaluate_dpr_retrieval as pyserini

from dense_hn import DenseHNError, trec
from dense_hn.answers import __main__ as answers_command
from dense_hn.answers import accuracy
from dense_hn.answers.files import Asked, read_answers
from dense_hn.answers.match import Finder, searchable
from dense_hn.answers.passages import Passage, read_passages
from dense_hn.collections import sources
from dense_hn.evaluate import __main__ as evaluate_command
from dense_hn.evaluate import measures

TOKENIZER = pyserini.SimpleTokenizer()


def has_answer(text, answers, patterns=False):
    """As the rooms put it together: whether one of the answers is in a passage's text."""
    return Finder(answers, patterns).finds_in(searchable(text, patterns))


def theirs(text: str, answers: list[str], patterns: bool = False) -> bool:
    return pyserini.has_answers(text, answers, TOKENIZER, patterns)


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("The wife had golden hair.", "Golden Hair", True),
        ("The wife had golden, long hair.", "golden hair", False),
        # Whole tokens.
        ("An article", "art", False),
        ("about 1066 AD", "106", False),
        ("in 1066.", "1066", True),
        # Composed and decomposed are one; with and without an accent are not.
        ("Beyonce\u0301 sang", "Beyonc\u00e9", True),
        ("Beyonce sang", "Beyonc\u00e9", False),
        # Punctuation is a token, white space is none.
        ("the U. S. Army", "U.S.", True),
        ("the U S Army", "U.S.", False),
        ("a mother-in-law", "mother - in - law", True),
        ("the king\u2019s", "king's", False),
        ("snake_case", "case", True),
        ("one\u00a0\n two", "one two", True),
        # What is not seen is no token, but ends one.
        ("zero\u200bwidth", "zero width", True),
        # Other scripts, letters beyond 16 bits, marks, numbers of all kinds.
        ("Αθήνα, ΟΔΟΣ ΣΑΣ", "οδος", True),
        ("東京は日本の首都", "日本", False),
        ("हिन्दी में", "हिन्दी", True),
        ("half ½ is", "½", True),
        ("\U0001d400bc", "\U0001d400BC", True),
        ("STRASSE", "Straße", False),
        ("I\u0307stanbul", "\u0130stanbul", True),
        ("short", "longer than the text", False),
        ("", "x", False),
    ],
)
def test_string_match_by_hand(text, answer, found):
    assert has_answer(text, [answer]) is found
    assert has_answer(text, ["no such", answer]) is found
    assert theirs(text, [answer]) is found


@pytest.mark.parametrize(
    ("text", "pattern", "found"),
    [
        ("born in 1969.", r"19\d9", True),
        ("born in 1968.", r"19\d9", False),
        ("New  York", "new +york", True),
        ("the art of", "^art", False),
        ("the\nart of", "^art", True),
        ("Beyonce\u0301", "beyonc\u00e9$", True),
        ("a (b", "(b", False),
    ],
)
def test_pattern_match_by_hand(text, pattern, found):
    assert has_answer(text, [pattern], patterns=True) is found
    assert theirs(text, [pattern], True) is found


def test_every_character_is_taken_apart_as_by_pyserini():
    """Alone, and between two letters that may become one token with it.

    Every eleventh from U+3400 on, where most are alike.
    """
    every = [*map(chr, [*range(0x3400), *range(0x3400, sys.maxunicode, 11)])]
    for text in (" . ".join(every), "a".join(every[:0x3400])):
        tokens = TOKENIZER.tokenize(unicodedata.normalize("NFD", text))
        # Not split(): some characters that are tokens of no one are blanks to it.
        assert searchable(text)[1:-1].split(" ") == tokens.words(uncased=True)


PIECES = ["a", "B", "ab", "é", "e\u0301", "ΑΣ", "Σ", "'", "-", ".", "$", "1", "½"]
PIECES += [" ", "\u00a0", "\n", "\u200b", "\u0301", "東", "\U0001f600", "İ", "ß", "_"]


@pytest.mark.parametrize(
    ("pieces", "patterns"),
    [
        (PIECES, False),
        ([*PIECES, ".*", "(", ")", "[a-e]", "^", "|", "?", r"\b", r"\d+"], True),
    ],
)
def test_random_texts_are_found_as_by_pyserini(pieces, patterns):
    rng = random.Random(11)

    def draw(most: int) -> str:
        return "".join(rng.choices(pieces, k=rng.randint(1, most)))

    seen = []
    for _ in range(4000):
        text, answers = draw(30), [draw(2) for _ in range(rng.randint(0, 4))]
        ours = has_answer(text, answers, patterns)
        # Their empty answers are everywhere.
        if all(searchable(answer, patterns).strip() for answer in answers):
            assert ours == theirs(text, answers, patterns), (text, answers)
            seen.append(ours)
    assert len(seen) > 1500
    assert 0.1 < sum(seen) / len(seen) < 0.9


def test_an_answer_without_a_token_is_nowhere():
    """Pyserini finds it in any text."""
    assert theirs("some text", [""])
    assert theirs("some text", ["\u200b"])
    finder = Finder(["", " \u200b", "text"])
    assert finder.unusable == ["", " \u200b"]
    assert finder.finds_in(searchable("some text"))
    assert not Finder(["", "\u200b"]).finds_in(searchable("some text"))
    assert Finder(["(", "", "a"], patterns=True).unusable == ["(", ""]


def made(kind: str, folder: Path) -> tuple[Path, str | None]:
    """The same answers in a file of a kind, and the split that names its topics."""
    asked = {"test-0": ("who's there?", ["me", 'a "b"']), "test-1": ("é", [])}
    path = folder / f"answers{kind}"
    if kind == ".jsonl":
        key = iter(("qid", "_id"))
        lines = [
            json.dumps({next(key): qid, "question": text, "answers": answers})
            for qid, (text, answers) in asked.items()
        ]
        path.write_text("\n".join(lines) + "\n")
        return path, None
    if kind == ".json.gz":
        entries = [{"question": q, "answers": a, "x": 1} for q, a in asked.values()]
        path.write_bytes(gzip.compress(json.dumps(entries, indent=4).encode()))
    else:
        path.write_text('who\'s there?\t"[\'me\', \'a ""b""\']"\né\t[]\n')
    return path, "test"


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".json.gz", ".jsonl"])
def test_answers_in_every_format(kind, tmp_path):
    path, split = made(kind, tmp_path)
    assert read_answers(path, split) == {
        "test-0": Asked("who's there?", ["me", 'a "b"']),
        "test-1": Asked("é", []),
    }
    if split:
        assert list(read_answers(path)) == ["0", "1"]
    else:
        with pytest.raises(DenseHNError, match=r"--split dev: .*has ids of its own"):
            read_answers(path, "dev")


def test_topics_are_called_as_their_collection_calls_them(tmp_path):
    """Also where a question goes over two lines."""
    (tmp_path / "c.tsv").write_text('id\ttext\ttitle\n1\t"one"\tOne\n')
    (tmp_path / "qa.csv").write_text("a\t['x']\n\"b\nc\"\t['y']\nd\t['z']\n")
    value = {"corpus": str(tmp_path / "c.tsv"), "test": str(tmp_path / "qa.csv")}
    topics = sources.KINDS["dpr"].read(value).topics["test"]
    asked = read_answers(tmp_path / "qa.csv", "test")
    assert topics == {qid: known.question for qid, known in asked.items()}
    assert topics["test-2"] == "d"


LONE = '{"qid": "q", "answers": ["\\ud800"]}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "q\t['a']\n", "a.txt: expected answers in a .csv or .tsv"),
        ("a.csv", "", "a.csv: no topic in this file"),
        ("a.csv", "q\t['a']\nq\n", "a.csv:2: expected `question<TAB>"),
        ("a.csv", "q\t['a']\nq\tParis\n", "a.csv:2: the answers are no list of str"),
        ("a.csv", "q\t['a', 3]\n", "a.csv:1: the answers are no list of strings"),
        ("a.csv", "q\t['a'\n", "a.csv:1: the answers are no list of strings"),
        ("a.csv", "q\tprint(1)\n", "a.csv:1: the answers are no list of strings"),
        ("a.csv", "q\t{['a']}\n", "a.csv:1: the answers are no list of strings"),
        ("a.csv", "q\t" + "[" * 9999 + "\n", "a.csv:1: the answers are no list of"),
        ("a.csv", 'q\t"' + "x" * 140_000, "a.csv:1: field larger than field limit"),
        ("a.json", '[{"question": "q"}]', "a.json:1: the answers are no list of str"),
        ("a.json", '[{"answers": []}]', "a.json:1: 'question' is missing or no string"),
        (
            "a.jsonl",
            '{"answers": ["a"]}\n',
            "a.jsonl:1: expected a string under one of",
        ),
        (
            "a.jsonl",
            '{"qid": "q", "answers": "a"}\n',
            "a.jsonl:1: the answers are no li",
        ),
        ("a.jsonl", '{"qid": "q", "question": 3}\n', "a.jsonl:1: expected a string"),
        (
            "a.jsonl",
            '{"qid": "q q", "answers": []}\n',
            "a.jsonl:1: query id 'q q' is em",
        ),
        ("a.jsonl", '{"qid": "q", "answers": []}\n' * 2, "a.jsonl:2: topic 'q' occurs"),
        ("a.jsonl", LONE, "a.jsonl:1: is no Unicode text"),
        ("a.jsonl", "\n", "a.jsonl:1: empty line; remove it"),
    ],
)
def test_broken_answers_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DenseHNError, match=re.escape(message)) as raised:
        read_answers(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_title_and_text_are_told_apart(tmp_path, caplog):
    """In every format; what is not wanted is not kept."""
    caplog.set_level("INFO", "dense_hn")
    corpora = {
        "dpr.tsv": 'id\ttext\ttitle\n1\t"the ""text"""\tTitle\n2\tno\t\n',
        "marco.tsv": "1\tTitle the text\n2\tno\n",
        "beir.jsonl": '{"_id": "1", "title": "Title", "text": "the text"}\n'
        '{"_id": "2", "text": "no"}\n',
        "pyserini.jsonl": '{"id": 1, "contents": "Title\\nthe text\\nand more"}\n'
        '{"id": "2", "contents": "no\\n"}\n{"id": "3", "contents": "\\nno title"}\n',
        "both.json": '[{"id": "1", "contents": "Title\\nthe text", "title": "x"}]',
    }
    expected = {
        "dpr.tsv": {"1": Passage("Title", 'the "text"'), "2": Passage("", "no")},
        "marco.tsv": {"1": Passage("", "Title the text"), "2": Passage("", "no")},
        "beir.jsonl": {"1": Passage("Title", "the text"), "2": Passage("", "no")},
        "pyserini.jsonl": {
            "1": Passage("Title", "the text\nand more"),
            "2": Passage("", "no\n"),
            "3": Passage("", "no title"),
        },
        "both.json": {"1": Passage("Title", "the text")},
    }
    for name, content in corpora.items():
        (tmp_path / name).write_text(content)
        wanted = expected[name]
        assert read_passages(tmp_path / name, wanted) == wanted
        assert read_passages(tmp_path / name, {"1"}) == {"1": wanted["1"]}
    assert "dpr.tsv: answers are looked for in 2 passages; 1 have a t" in caplog.text
    assert Passage("Title", "text").contents() == "Title\ntext"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "1"}\n', 'c.jsonl:1: expected {"id": "…", "contents": "…"}'),
        ('{"contents": "x"}\n', "c.jsonl:1: expected"),
        ('{"id": "1", "contents": "x"}\n' * 2, "c.jsonl:2: docid '1' occurs twice"),
        ('{"id": "1", "text": "\\ud800"}\n', "c.jsonl:1: document '1': is no Unicode"),
    ],
)
def test_broken_passages_are_refused(content, message, tmp_path):
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(DenseHNError, match=re.escape(message)):
        read_passages(tmp_path / "c.jsonl", {"1"})


WORDS = ["red", "Blue", "café", "U.S.", "1,000", "x-ray", "Σας", "the", "of"]


@pytest.fixture
def qa(tmp_path, monkeypatch) -> SimpleNamespace:
    """40 topics in DPR's format, 60 passages with titles, two runs of 12 hits.

    Topics are called as by Pyserini. Both runs lack topic 39; scores of `tied` tie.
    """
    rng = random.Random(3)
    passages = {
        str(n): (rng.choice(WORDS), " ".join(rng.choices(WORDS[:7], k=2)))
        for n in range(60)
    }
    questions = {
        str(n): (f"question {n}?", [" ".join(rng.choices(WORDS, k=rng.randint(1, 2)))])
        for n in range(40)
    }
    runs = {
        name: {
            qid: {
                docid: float(rng.randint(0, 4) if name == "tied" else 50 - place)
                for place, docid in enumerate(rng.sample(sorted(passages), 12))
            }
            for qid in list(questions)[:-1]
        }
        for name in ("plain", "tied")
    }
    monkeypatch.chdir(tmp_path)
    rows = [f'{d}\t"{text}"\t{title}\n' for d, (title, text) in passages.items()]
    Path("psgs.tsv").write_text("id\ttext\ttitle\n" + "".join(rows))
    rows = [f"{text}\t{answers!r}\n" for text, answers in questions.values()]
    Path("qa.csv").write_text("".join(rows))
    trec.write_run("plain.txt", runs["plain"], "t")
    # write_run would take the ties away.
    Path("tied.txt").write_text(
        "".join(
            f"{qid} Q0 {docid} 0 {score} t\n"
            for qid, hits in runs["tied"].items()
            for docid, score in hits.items()
        )
    )
    return SimpleNamespace(passages=passages, questions=questions, runs=runs)


ASKED = ["--answers", "qa.csv", "--corpus", "psgs.tsv"]


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a command; returns what it printed."""

    def run(command, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        command.main()
        return capsys.readouterr().out

    return run


def converted(name: str, qa: SimpleNamespace, monkeypatch) -> dict:
    """What Pyserini's converter writes, its index and topics replaced by these."""
    raw = {
        docid: json.dumps({"id": docid, "contents": f"{title}\n{text}"})
        for docid, (title, text) in qa.passages.items()
    }
    topics = {
        int(qid): {"title": text, "answers": repr(answers)}
        for qid, (text, answers) in qa.questions.items()
    }

    class Searcher:
        def __init__(self, index: str) -> None:
            assert index == "."

        def doc(self, docid: str) -> SimpleNamespace:
            return SimpleNamespace(raw=lambda: raw[docid])

    search = SimpleNamespace(
        get_topics=None, get_topics_with_reader=lambda reader, path: topics
    )
    lucene = SimpleNamespace(LuceneSearcher=Searcher)
    module = "pyserini.eval.convert_trec_run_to_dpr_retrieval_run"
    argv = [module, "--topics-file", "t", "--index", ".", "--store-raw"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyserini.search", search)
        patch.setitem(sys.modules, "pyserini.search.lucene", lucene)
        patch.setattr(sys, "argv", [*argv, "--input", name, "--output", "theirs.json"])
        runpy.run_module(module, run_name="__main__")
    return json.loads(Path("theirs.json").read_text())


def test_the_json_is_pyserinis(qa, call, monkeypatch):
    """Byte for byte, where the run's lines are in the order of its scores."""
    call(answers_command, *ASKED, "--output", "ours.json", "plain.txt")
    expected = converted("plain.txt", qa, monkeypatch)
    assert json.loads(Path("ours.json").read_text()) == expected
    assert Path("ours.json").read_bytes() == Path("theirs.json").read_bytes()
    found = [c["has_answer"] for q in expected.values() for c in q["contexts"]]
    assert 0.1 < sum(found) / len(found) < 0.9


@pytest.mark.parametrize("name", ["plain", "tied"])
def test_accuracies_are_pyserinis(name, qa, call, capsys):
    """Of the JSON, by what it says of each hit, and by Pyserini's own look at its text."""
    cuts = [1, 2, 5, 12, 20]
    names = [f"Answer@{k}" for k in cuts]
    printed = call(
        evaluate_command,
        *[f"{name}.txt", *ASKED, "--format", "json", "--measures", *names],
    )
    cells = json.loads(printed)["rows"][0]["cells"]
    call(answers_command, *ASKED, "--output", "ours.json", f"{name}.txt")
    topics = json.loads(Path("ours.json").read_text())
    for topic in topics.values():
        for context in topic["contexts"]:
            del context["has_answer"]
    Path("bare.json").write_text(json.dumps(topics))
    for path in ("ours.json", "bare.json"):
        pyserini.evaluate_retrieval(path, cuts)
        lines = capsys.readouterr().out.splitlines()
        accuracies = [float(line.split()[-1]) for line in lines]
        # They count the 39 topics of the file, we all 40.
        expected = [value * 39 / 40 for value in accuracies]
        assert [cells[m]["mean"] for m in names] == pytest.approx(expected, abs=1e-4)
    assert 0 < cells["Answer@1"]["mean"] < cells["Answer@5"]["mean"] < 39 / 40


def test_answers_and_qrels_in_one_table(qa, call, caplog):
    """Topics are those of the qrels; each column as by itself; by hand where it can be."""
    caplog.set_level("INFO", "dense_hn")
    qrels = {qid: {docid: 1 for docid in ["1", "2", "3"]} for qid in ("0", "7", "39")}
    qrels["0"]["4"] = 0
    trec.write_qrels("qrels", qrels)
    line = ["plain.txt", "tied.txt", *ASKED, "--qrels", "qrels", "--format", "json"]
    whole = json.loads(call(evaluate_command, *line, "--per_query", "q.tsv"))
    assert whole["topics"] == 3
    assert list(whole["rows"][0]["cells"]) == [*measures.DEFAULT, *accuracy.DEFAULT]
    for row, name in zip(whole["rows"], ("plain", "tied"), strict=True):
        run = qa.runs[name]
        values = measures.per_query(qrels, run, ["nDCG@10"])["nDCG@10"].values()
        assert row["cells"]["nDCG@10"]["mean"] == pytest.approx(sum(values) / 3)
        found = [
            any(
                theirs(qa.passages[docid][1], qa.questions[qid][1])
                for docid in trec.ranked(run[qid])[:5]
            )
            for qid in ("0", "7")
        ]
        assert row["cells"]["Answer@5"]["mean"] == pytest.approx(sum(found) / 3)
        assert row["cells"]["Answer@5"]["p_holm"] is not None or name == "plain"
    held = sum(
        any(theirs(qa.passages[d][1], qa.questions[q][1]) for d in ("1", "2", "3"))
        for q in qrels
    )
    assert f"{held} of 3 topics have an answer in a relevant passage" in caplog.text
    assert "plain: 1 of 3 judged topics are not in the run, such as '39'" in caplog.text
    head = Path("q.tsv").read_text().splitlines()[0].split("\t")
    assert head[2:] == [*measures.DEFAULT, *accuracy.DEFAULT]


def test_the_title_is_not_searched(tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.jsonl").write_text('{"id": "d", "contents": "Paris\\nA city."}\n')
    Path("a.jsonl").write_text('{"qid": "q", "answers": ["Paris"]}\n')
    Path("run").write_text("q Q0 d 1 1.0 t\n")
    line = ["run", "--answers", "a.jsonl", "--corpus", "c.jsonl"]
    asked = ["--measures", "Answer@1", "--format", "json"]
    whole = json.loads(call(evaluate_command, *line, *asked))
    assert whole["rows"][0]["cells"]["Answer@1"]["mean"] == 0
    # Written as dense_hn.collections joins the two, it cannot be told apart.
    Path("c.jsonl").write_text('{"id": "d", "contents": "Paris A city."}\n')
    whole = json.loads(call(evaluate_command, *line, *asked))
    assert whole["rows"][0]["cells"]["Answer@1"]["mean"] == 1


def test_what_cannot_be_found_is_told(tmp_path, call, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "dense_hn")
    Path("c.jsonl").write_text('{"id": "d", "contents": "some text"}\n')
    lines = [{"qid": "q", "answers": ["(", "text"]}, {"qid": "r", "answers": []}]
    lines += [{"qid": "s", "answers": ["\u200b"]}]
    Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("run").write_text("".join(f"{qid} Q0 d 1 1.0 t\n" for qid in "qrs"))
    line = ["run", "--answers", "a.jsonl", "--corpus", "c.jsonl", "--format", "json"]
    for more, told in (
        (
            [],
            "a.jsonl: 1 answers hold no letter or other visible character, such as '\\u2",
        ),
        (
            ["--regex"],
            "a.jsonl: 1 answers hold no valid pattern, such as '(' of query 'q'",
        ),
    ):
        caplog.clear()
        asked = [*more, "--measures", "Answer@1"]
        cell = json.loads(call(evaluate_command, *line, *asked))["rows"][0]["cells"]
        assert cell["Answer@1"]["mean"] == pytest.approx(1 / 3)
        assert told in caplog.text
        assert "1 of 3 topics have an empty list of answers" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plain.txt"], "name --qrels, --answers with --corpus, or both"),
        (
            ["plain.txt", *ASKED, "--measures", "nDCG@10"],
            "measure nDCG@10: it needs --q",
        ),
        (["plain.txt", "--answers", "qa.csv"], "--answers and --corpus: name both"),
        (
            ["plain.txt", "--qrels", "q", "--corpus", "c"],
            "--answers and --corpus: name",
        ),
        (
            ["plain.txt", *ASKED, "--measures", "Answer"],
            "measure Answer: write Answer@k",
        ),
        (
            ["plain.txt", *ASKED, "--measures", "Answer(rel=2)@5"],
            "measure Answer(rel=2)@5: write Answer@k",
        ),
        (
            ["plain.txt", "--qrels", "q", "--measures", "Answer@5"],
            "measure Answer@5: it needs answers, which `python -m dense_hn.evaluate",
        ),
        (
            ["plain.txt", *ASKED, "--qrels", "q", "--measures", "nDCG@10"],
            "--answers: add Answer@20, or another cut, to --measures",
        ),
        (
            ["plain.txt", *ASKED, "--split", "test"],
            (
                "plain: none of the 40 answered topics is in the run; name the run and the "
                "answers of the same topics"
            ),
        ),
        (
            ["plain.txt", *ASKED, "--qrels", "other.qrels"],
            (
                "other.qrels: none of the 1 queries, such as 'test-1', is among the 40 of "
                "qa.csv, such as '0'; name files of the same topics (--split"
            ),
        ),
        (
            ["plain.txt", *ASKED, "--qrels", "more.qrels"],
            "more.qrels: query '40' has no answers in qa.csv; 1 of 2 have none",
        ),
        (
            ["strange.txt", *ASKED],
            "strange.txt: docid 'x' (query '1') is not in psgs.tsv; 1 such lines",
        ),
        (
            ["plain.txt", *ASKED, "--qrels", "strange.qrels"],
            "strange.qrels: docid 'x' (query '1') is not in psgs.tsv; 1 such lines",
        ),
    ],
)
def test_impossible_evaluations_are_refused(arguments, message, qa, call):
    Path("other.qrels").write_text("test-1 0 1 1\n")
    Path("more.qrels").write_text("1 0 1 1\n40 0 1 1\n")
    Path("strange.qrels").write_text("1 0 x 1\n1 0 y 0\n")
    Path("strange.txt").write_text("1 Q0 x 1 1.0 t\n")
    with pytest.raises(DenseHNError, match=re.escape(message)):
        call(evaluate_command, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*ASKED, "--output", "qa.csv"], "qa.csv: is no retrieval JSON, and"),
        (
            [*ASKED, "--output", "train.json"],
            "train.json: is no retrieval JSON",
        ),
        ([*ASKED, "--output", "."], ".: is a folder"),
        (
            [*ASKED, "--output", "o.json", "--split", "test"],
            (
                "plain.txt: none of the 39 queries, such as '0', is among the 40 of qa.csv, "
                "such as 'test-0'"
            ),
        ),
        (
            ["--answers", "a.jsonl", "--corpus", "psgs.tsv", "--output", "o.json"],
            "a.jsonl: no question of query '0' there; name the topics by --topics",
        ),
    ],
)
def test_impossible_conversions_are_refused(arguments, message, qa, call):
    Path("train.json").write_text('{"0": {\n"title": "x"}}\n')
    lines = [json.dumps({"qid": qid, "answers": ["a"]}) for qid in qa.questions]
    Path("a.jsonl").write_text("\n".join(lines))
    kept = Path("qa.csv").read_text()
    with pytest.raises(DenseHNError, match=re.escape(message)):
        call(answers_command, *arguments, "plain.txt")
    assert Path("qa.csv").read_text() == kept
    assert not Path("o.json").exists()


def test_questions_may_stand_in_a_topics_file(qa, call):
    """And what was written before is replaced."""
    lines = [
        json.dumps({"qid": qid, "answers": answers})
        for qid, (_, answers) in qa.questions.items()
    ]
    Path("a.jsonl").write_text("\n".join(lines))
    trec.write_topics("t.tsv", {qid: text for qid, (text, _) in qa.questions.items()})
    call(answers_command, *ASKED, "--output", "ours.json", "plain.txt")
    expected = Path("ours.json").read_bytes()
    line = ["--answers", "a.jsonl", "--corpus", "psgs.tsv", "--topics", "t.tsv"]
    call(answers_command, *line, "--output", "ours.json", "plain.txt")
    assert Path("ours.json").read_bytes() == expected
