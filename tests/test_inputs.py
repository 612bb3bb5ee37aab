"""Every format in which a user's files come in, made here by hand, and its refusals."""

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dense_hn import DenseHNError, reading, trec
from dense_hn.collections import collection, sources
from dense_hn.collections.corpus import corpus_digest, read_corpus
from dense_hn.train import recipe
from dense_hn.train.pipeline import Pipeline


def write(path, text):
    """Write a file, gzipped where its name says so."""
    packed = text.encode() if path.suffix != ".gz" else gzip.compress(text.encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    return path


def lines(*items):
    return "".join(f"{json.dumps(item, ensure_ascii=False)}\n" for item in items)


DOCUMENTS = [
    {"id": "d1", "contents": "one [1], {2}", "title": "left alone", "n": [1, {"a": 2}]},
    {"id": "d2", "contents": "zwei “zwei” \\ \n\t\u2028 x"},
    {"id": 7, "contents": "sept"},
]
CORPUS = {"d1": "one [1], {2}", "d2": "zwei “zwei” \\ \n\t\u2028 x", "7": "sept"}

JSON_LAYOUTS = {
    "c.jsonl": lines(*DOCUMENTS),
    "c.jsonl.gz": lines(*DOCUMENTS),
    "c.other": lines(*DOCUMENTS),
    "lines.json": lines(*DOCUMENTS),
    "array.json": json.dumps(DOCUMENTS),
    "array.json.gz": "\n " + json.dumps(DOCUMENTS, indent=2) + "\n",
    "objects.json": "\n".join(json.dumps(d, indent=1) for d in DOCUMENTS),
}


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", JSON_LAYOUTS)
def test_json_in_every_layout(tmp_path, monkeypatch, name, chunk):
    monkeypatch.setattr(reading, "CHUNK", chunk)
    path = write(tmp_path / name, JSON_LAYOUTS[name])
    assert read_corpus(path) == CORPUS
    assert corpus_digest(read_corpus(path)) == corpus_digest(CORPUS)


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=3),
            st.one_of(
                st.text(max_size=5),
                st.floats(),
                st.integers(),
                st.none(),
                st.booleans(),
                st.lists(st.floats(), max_size=3),
            ),
            max_size=3,
        ),
        max_size=5,
    ),
    st.sampled_from([None, 0, 3]),
    st.integers(1, 12),
    st.booleans(),
)
def test_objects_come_one_by_one_as_json_reads_them_all(
    tmp_path_factory, items, indent, chunk, array
):
    path = tmp_path_factory.mktemp("json") / "x.json"
    texts = [json.dumps(item, indent=indent) for item in items]
    path.write_text(json.dumps(items, indent=indent) if array else "\n".join(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CHUNK", chunk)
        read = [value for _, value in reading.objects(path, "x")]
    assert repr(read) == repr(json.loads(f"[{','.join(texts)}]"))


def test_a_folder_is_read_in_order(tmp_path, caplog):
    folder = tmp_path / "corpus"
    write(folder / "b" / "2.json.gz", json.dumps([{"id": "5", "contents": "five"}]))
    write(folder / "b" / "1.gz", lines({"id": "4", "contents": "four"}))
    write(folder / "a.jsonl", lines({"id": "3", "contents": "three"}))
    write(folder / "README", "not JSON")
    assert list(read_corpus(folder).items()) == [
        ("3", "three"),
        ("4", "four"),
        ("5", "five"),
    ]
    assert "1 files there are not read" in caplog.text
    write(folder / "z.jsonl", lines({"id": "5", "contents": "again"}))
    with pytest.raises(DenseHNError, match=r"z.jsonl:1: docid '5' occurs twice"):
        read_corpus(folder)


PSGS = (
    "id\ttext\ttitle\n"
    '1\t"Aaron Aaron ( or ; ""Ahärôn"") is a prophet"\tAaron\n'
    '2\tplain text\t"The ""A"" Team"\n'
)


@pytest.mark.parametrize("ending", [".tsv", ".tsv.gz"])
def test_tsv(tmp_path, ending):
    """MS MARCO's passages and documents, and DPR's, told apart by their first line."""
    passages = write(tmp_path / f"p{ending}", '0\ta "b\n10\tIâ\x80\x99m\u2028 \x85 x\n')
    assert read_corpus(passages) == {"0": 'a "b', "10": "Iâ\x80\x99m\u2028 \x85 x"}
    body = "word " * 3000
    documents = f'D1\thttps://a.b/?c\tA "title\t{body}\nD2\thttps://d\t\t\n'
    assert read_corpus(write(tmp_path / f"d{ending}", documents)) == {
        "D1": f'https://a.b/?c<sep>A "title<sep>{body}'[:10000],
        "D2": "https://d<sep><sep>",
    }
    assert read_corpus(write(tmp_path / f"w{ending}", PSGS)) == {
        "1": 'Aaron Aaron Aaron ( or ; "Ahärôn") is a prophet',
        "2": 'The "A" Team plain text',
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", '[{"id": "a",\n"contents": "x"},\n{"id" 3}]', ":3: broken JSON"),
        ("c.json", '[{"id": "a", "contents": "x"}\n', ":2: the array has no end"),
        ("c.json", '[{"id": "a", "contents": "x"}]\n{}', ":1: something follows"),
        ("c.json", '\n\n{"id": "a", "contents"', ":3: broken JSON"),
        ("c.json", '{"id": "a", "contents": "x"}\n[3]', ":2: a list, not a JSON"),
        ("c.json", '[\n{"id": "a"}]', ":2: 'contents' is missing"),
        ("c.json", "[]", ": no document in"),
        ("c.jsonl", '{"_id": "a", "text": "x"}', ":1: 'id' is miss.* beir:FOLDER"),
        ("c.tsv", "1\ta\n2\tb\tc\n", ":2: 3 columns; expected `pid<TAB>text`"),
        ("c.tsv", "1\ta\n\n", ":2: empty line"),
        ("c.tsv", "1\ta\n1\tb\n", ":2: docid '1' occurs twice"),
        ("c.tsv", "1\ta\n \tb\n", ":2: docid ' ' is empty or has white space"),
        ("c.tsv", "1\ta\n2\t\n", ":2: document '2' has no text"),
        ("c.tsv", "1\ta\tb\n", ":1: 3 columns, no known corpus; .*`id<TAB>text<TAB>t"),
        ("c.tsv", PSGS + "3\tx\n", ":4: 2 columns; expected `id<TAB>text"),
        (
            "c.tsv",
            PSGS + '3\t"never' + " closed" * 20000 + "\n",
            ":4: field larger .* quote never",
        ),
    ],
)
def test_a_corpus_that_is_broken_is_named_by_line(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(DenseHNError, match=f"^{path}{message}"):
        read_corpus(path)


def test_other_broken_corpora(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DenseHNError, match=r"no .json, .jsonl, .gz file in this fold"):
        read_corpus(tmp_path / "empty")
    packed = gzip.compress(lines(*DOCUMENTS).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-20])
    with pytest.raises(DenseHNError, match="cut.jsonl.gz: broken gzip"):
        read_corpus(tmp_path / "cut.jsonl.gz")
    (tmp_path / "latin.tsv").write_bytes("1\tcaf\xe9\n".encode("latin-1"))
    with pytest.raises(DenseHNError, match="latin.tsv: not UTF-8"):
        read_corpus(tmp_path / "latin.tsv")


TOPICS = {"301": "International Organized Crime", "007": "Mars: a < b & c"}
OLD_TREC = """

<top>
<head> Tipster Topic Description

<num> Number: 301
<title> Topic:  International
Organized Crime

<desc> Description:
Which <b>crime?

<narr> Narrative:
None.

</top>
<top>

<num>  Number:  007
<title> Mars: a < b & c
</top>
"""
NEW_TREC = """<top>
<num> Number: 301 </num>
<title>International Organized Crime</title>
<desc>Which?</desc>
<narr>None.</narr>
</top>
<top lang='en'><num>007</num><title>
Mars: a < b & c
</title></top>
"""
TOPICS_FILES = {
    "t.tsv": "301\tInternational Organized Crime\r\n007\tMars: a < b & c\n",
    "old.txt": OLD_TREC,
    "new.trec": NEW_TREC,
    "t.json": json.dumps(
        {qid: {"title": text, "x": {"title": "no"}} for qid, text in TOPICS.items()}
    ),
    "t.jsonl": lines(
        {"qid": 301, "title": TOPICS["301"], "text": "other"},
        {"id": "007", "title": TOPICS["007"]},
    ),
    "queries.jsonl": lines(
        *({"_id": q, "text": t, "metadata": {"id": "x"}} for q, t in TOPICS.items())
    ),
}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", TOPICS_FILES)
def test_topics(tmp_path, name, packed):
    path = write(tmp_path / f"{name}{packed}", TOPICS_FILES[name])
    assert list(trec.read_topics(path).items()) == list(TOPICS.items())


def test_a_trec_title_may_have_brackets(tmp_path):
    text = "<top><num> 1\n<title> how to sort List<String> in java\n<desc> x\n</top>\n"
    path = write(tmp_path / "t.txt", text)
    assert trec.read_topics(path) == {"1": "how to sort List<String> in java"}


def test_trec_topics_have_other_fields(tmp_path):
    """As the ad hoc topics 51 to 150 have, between number and title."""
    text = "<top>\n<head> Tipster\n<num> Number:  051\n<dom> Domain:  Economics\n"
    text += (
        "<title> Topic:  Airbus Subsidies\n<desc> Description:\nx\n<smry> y\n</top>\n"
    )
    text += "<top><num>052</num><title>South Africa <description> z</top>\n"
    path = write(tmp_path / "t.txt", text)
    assert trec.read_topics(path) == {"051": "Airbus Subsidies", "052": "South Africa"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.txt", "<top>\n<num> 1\n<desc> x\n</top>", ":1: a topic without <title>"),
        ("t.txt", f"{NEW_TREC}<top><title>x</top>", ":10: a topic without <num>"),
        ("t.txt", f"{NEW_TREC}<top><num>301<title>x</top>", ":10: query id '301' occ"),
        ("t.txt", "<top><num>1<title></top>", ":1: query '1' has no text"),
        ("t.txt", "<top><num>1<title>a<title>b</top>", ":1: a topic with two <title>"),
        ("t.json", '{"1": {"title": "a"}, "1": {"title": "b"}}', ": query id '1' occ"),
        ("t.json", '{"1": "a"}', r": expected .*query id '1'"),
        ("t.json", '{"1": {"text": "a"}}', r": expected .*query id '1'"),
        ("t.json", "[1]", ": expected"),
        ("t.json", '{"1"', ": broken JSON"),
        (
            "t.jsonl",
            '{"id": "1", "title": "a"}\n{"title": "b"}\n',
            ":2: expected a str",
        ),
        ("t.jsonl", '{"id": "1", "title": null}\n', ":1: expected a string under"),
        ("t.jsonl", "[]\n", ":1: a list, not a JSON object"),
    ],
)
def test_topics_that_are_broken_are_named(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(DenseHNError, match=f"^{path}{message}"):
        trec.read_topics(path)


def test_ids_that_pyserini_changes_go_to_it_as_json(tmp_path):
    copy = tmp_path / "copy.json"
    plain = write(tmp_path / "plain.tsv", "0\tx\n7\tx\n70\tx\nq007\tx\n")
    assert trec.for_pyserini(plain, copy) == plain
    assert not copy.exists()
    for changed in ("007", "00", "²", "٣"):
        path = write(tmp_path / "t.tsv", f"1\ta\n{changed}\tb “c”\n")
        assert trec.for_pyserini(path, copy) == copy
        assert trec.read_topics(copy) == {"1": "a", changed: "b “c”"}


@pytest.mark.parametrize("name", [*TOPICS_FILES, "t.json.gz", "t.queries"])
def test_formats_that_pyserini_may_not_know_go_to_it_as_json(tmp_path, name):
    """By their names, and by words in their paths; plain TSV goes as it is."""
    text = TOPICS_FILES.get(name.removesuffix(".gz"), TOPICS_FILES["t.tsv"])
    path = write(tmp_path / name, text.replace("007", "8"))
    plain = name == "t.tsv"
    copy = tmp_path / "copy.json"
    assert trec.for_pyserini(path, copy) == (path if plain else copy)
    assert plain or trec.read_topics(copy) == trec.read_topics(path)


QRELS = {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": 1}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trec.txt", "q1 0 d1 2\nq1 0 d2 0\nq2 Q0 d1 1\n"),
        ("qrels.train.tsv", "q1\t0\td1\t2\nq1\t0\td2\t0\nq2\t0\td1\t1\n"),
        ("test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t1\n"),
        (
            "test.tsv.gz",
            "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t1\n",
        ),
    ],
)
def test_qrels(tmp_path, caplog, name, text):
    path = write(tmp_path / name, text)
    assert trec.read_qrels(path) == QRELS
    assert not caplog.text
    write(path, text + text.splitlines()[-1])
    assert trec.read_qrels(path) == QRELS
    assert "1 judgements stand there twice" in caplog.text


def test_qrels_without_their_header_are_refused(tmp_path):
    path = write(tmp_path / "test.tsv", "q1\td1\t2\n")
    with pytest.raises(DenseHNError, match=":1: expected 4 columns `qid 0 docid rel"):
        trec.read_qrels(path)


@pytest.fixture
def given_files(tmp_path):
    """A corpus and topics, of three formats, and the value that names them."""
    write(tmp_path / "corpus.tsv", "d1\tone\nd2\ttwo\n")
    topics = {f"q{n}": {"title": f"number {n}"} for n in range(10)}
    write(tmp_path / "train.json", json.dumps(topics))
    qrels = "".join(f"q{n}\td1\t1\n" for n in range(9)) + "q9\td2\t0\nq8\td2\t1\n"
    write(tmp_path / "train.tsv", f"query-id\tcorpus-id\tscore\n{qrels}")
    write(tmp_path / "new.trec", "<top><num>1<title>Number 3</top>")
    return {
        "corpus": str(tmp_path / "corpus.tsv"),
        "train": [str(tmp_path / "train.json"), str(tmp_path / "train.tsv")],
        "new.year": str(tmp_path / "new.trec"),
    }


def test_files_become_a_collection(given_files, tmp_path, caplog):
    caplog.set_level("INFO", "dense_hn")
    sources.build("files", given_files, tmp_path / "out")
    made = collection.read(tmp_path / "out")
    assert made.corpus == {"d1": "one", "d2": "two"}
    assert made.topics.keys() == {"train", "dev", "new.year"}
    assert made.qrels.keys() == {"train", "dev"}
    assert made.topics["new.year"] == {"1": "Number 3"}
    # q9 has nothing relevant, q3 stands in another split, one of the others is dev's.
    train = made.topics["train"] | made.topics["dev"]
    assert train.keys() == {f"q{n}" for n in range(9)} - {"q3"}
    assert len(made.topics["dev"]) == 1
    assert (made.qrels["train"] | made.qrels["dev"])["q8"] == {"d1": 1, "d2": 1}
    assert "1 training topics that are evaluated on" in caplog.text


def test_files_in_a_recipe_and_on_a_command_line(given_files, tmp_path):
    spec = f"files:{json.dumps(given_files)}"
    assert sources.parse(spec) == ("files", given_files)
    before = sources.digests("files", given_files)
    write(tmp_path / "new.trec", "<top><num>1<title>other</top>")
    assert sources.digests("files", given_files) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": None}, "files: expected {corpus: PATH, SPLIT: .*TOPICS, QRELS"),
        ({"a/b": "x"}, "named after the split 'a/b'"),
        ({"test": ["a", "b", "c"]}, "files: test: expected"),
        ({"test": [3]}, "files: test: expected"),
        ({"test": "absent.tsv"}, "absent.tsv: topics not found"),
        ({"corpus": "absent.tsv"}, "absent.tsv: corpus not found"),
    ],
)
def test_files_that_are_not_there_or_misnamed(given_files, tmp_path, change, message):
    with pytest.raises(DenseHNError, match=message):
        sources.build("files", given_files | change, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_do_not_belong_together(given_files, tmp_path):
    write(tmp_path / "train.tsv", "q1 0 d9 1\n")
    with pytest.raises(
        DenseHNError, match="docid 'd9' .* is not in .*corpus.tsv; 1 su"
    ):
        sources.build("files", given_files, tmp_path / "out")


def test_files_of_other_queries(given_files, tmp_path):
    write(tmp_path / "train.tsv", "301 0 d1 1\n")
    with pytest.raises(DenseHNError, match="train: of 1 judged topics none has both a"):
        sources.build("files", given_files, tmp_path / "out")


def test_training_topics_without_qrels(given_files, tmp_path):
    given = given_files | {"train": given_files["train"][0]}
    sources.build("files", given, tmp_path / "out")
    made = collection.read(tmp_path / "out")
    assert made.topics["train"].keys() == {f"q{n}" for n in range(10)} - {"q3"}
    assert made.qrels == {}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("beir:2024", "beir: expected a path, got 2024; quote it"),
        ("folder:2024-01-15", "folder: expected a path, got datetime.date"),
        ("folder:2024-13-45", "folder:2024-13-45: broken YAML"),
        ("files:{corpus: c.jsonl, test: []}", "files: test: expected .*, got \\[\\]"),
    ],
)
def test_values_that_are_no_words(spec, message):
    with pytest.raises(DenseHNError, match=message):
        kind, value = sources.parse(spec)
        sources.splits(kind, value)
    assert sources.parse("files:{corpus: c, 2019: t}")[1].keys() == {"corpus", "2019"}


def test_every_source_on_the_page_is_one():
    page = Path(recipe.__file__).parents[2] / "integrations" / "pyserini" / "inputs.md"
    kinds = "|".join(sources.NAMES)
    named = re.findall(rf'`"?(({kinds}): ?[^`"]+)"?`', page.read_text())
    assert {kind for _, kind in named} == {*sources.NAMES}
    for spec, kind in named:
        assert sources.parse(spec)[0] == kind


def context(docid, key="passage_id", **more):
    return {"title": "T", "text": "text", "score": 1000, key: docid, **more}


TRAIN = [
    {
        "dataset": "nq_train_psgs_w100",
        "question": "who is aaron",
        "answers": ["a prophet"],
        "positive_ctxs": [context("1"), context("1"), context("99")],
        "negative_ctxs": [],
        "hard_negative_ctxs": [context("2"), context("98"), context("3")],
    },
    {
        "question": "lost",
        "answers": [],
        "positive_ctxs": [context("97")],
        "negative_ctxs": [],
        "hard_negative_ctxs": [context("2")],
    },
    {
        "question": "what is plain",
        "answers": ["text"],
        "positive_ctxs": [context(2, "psg_id")],
        "negative_ctxs": [],
        "hard_negative_ctxs": None,
    },
]


@pytest.fixture
def dpr_files(tmp_path):
    """DPR's files in small, and the value that names them."""
    write(tmp_path / "psgs_w100.tsv.gz", PSGS + "3\tthree\tThree\n")
    write(tmp_path / "biencoder-nq-train.json.gz", json.dumps(TRAIN, indent=4))
    write(tmp_path / "biencoder-nq-dev.json", json.dumps(TRAIN[2:]))
    questions = 'who\'s there?\t[\'me\', "you"]\n"a ""b"""\t[\'c\']\n'
    write(tmp_path / "nq-test.qa.csv", questions)
    return {
        "corpus": str(tmp_path / "psgs_w100.tsv.gz"),
        "train": str(tmp_path / "biencoder-nq-train.json.gz"),
        "dev": str(tmp_path / "biencoder-nq-dev.json"),
        "test": str(tmp_path / "nq-test.qa.csv"),
    }


def test_dpr_becomes_a_collection(dpr_files, tmp_path, caplog):
    caplog.set_level("INFO", "dense_hn")
    # Otherwise the one of dev would be taken out of train.
    write(
        tmp_path / "biencoder-nq-dev.json", json.dumps([TRAIN[2] | {"question": "x"}])
    )
    sources.build("dpr", dpr_files, tmp_path / "out")
    made = collection.read(tmp_path / "out")
    assert made.corpus.keys() == {"1", "2", "3"}
    assert made.topics == {
        "train": {"train-0": "who is aaron", "train-2": "what is plain"},
        "dev": {"dev-0": "x"},
        "test": {"test-0": "who's there?", "test-1": 'a "b"'},
    }
    assert made.qrels == {
        "train": {"train-0": {"1": 1}, "train-2": {"2": 1}},
        "dev": {"dev-0": {"2": 1}},
    }
    # train-1 has no positive passage left, so its hard negative goes, too.
    run = tmp_path / "out" / "run.hard.train.txt"
    assert trec.read_run(run) == made.runs["hard"]["train"]
    assert [line.split()[:4] for line in run.read_text().splitlines()] == [
        ["train-0", "Q0", "2", "1"],
        ["train-0", "Q0", "3", "2"],
    ]
    for told in (
        "2 train positives that the corpus lacks",
        "1 train hard negatives that the corpus lacks",
        "1 train topics without text or without a relevant document",
    ):
        assert told in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([{"question": 3}], "train.json.gz:1: 'question' is missing or no string"),
        (
            [{"question": "x"}, {"question": "x", "positive_ctxs": [{"text": "y"}]}],
            "train.json.gz:1: a passage of positive_ctxs without passage_id or psg_id",
        ),
        (
            [{"question": "x", "positive_ctxs": 3}],
            "train.json.gz:1: positive_ctxs is no list",
        ),
        ([], "train.json.gz: no question in this file"),
    ],
)
def test_dpr_files_that_are_broken(dpr_files, tmp_path, change, message):
    write(tmp_path / "biencoder-nq-train.json.gz", json.dumps(change))
    with pytest.raises(DenseHNError, match=message):
        sources.build("dpr", dpr_files, tmp_path / "out")


def test_dpr_files_of_other_formats(dpr_files, tmp_path):
    with pytest.raises(DenseHNError, match=r"dpr: test: expected a .json, .csv, .tsv"):
        sources.build("dpr", dpr_files | {"test": "nq-test.txt"}, tmp_path / "out")
    write(tmp_path / "nq-test.qa.csv", "who\n")
    with pytest.raises(
        DenseHNError, match=r"nq-test.qa.csv:1: expected `question<TAB>"
    ):
        sources.build("dpr", dpr_files, tmp_path / "out")


def test_a_recipe_reads_the_run_that_a_collection_brings(dpr_files, bert, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"collection: {{dpr: {json.dumps(dpr_files)}}}\nencoder: {{source: {bert}}}\n"
        "warmup: {negatives: [bm25, collection:hard]}\nevaluate: {topics: dev}\n"
    )
    pipeline = Pipeline(recipe.read(str(path)), tmp_path)
    run = tmp_path / "work" / "mine" / "collection" / "run.hard.train.txt"
    training = pipeline.trainings["warmup"]
    assert training.arguments[0].negatives[1] == str(run)
    key = pipeline.ledger.stages["warmup"].key
    pipeline.ledger.stages["collection"].work()
    assert run.is_file()
    again = Pipeline(recipe.read(str(path)), tmp_path)
    assert again.ledger.stages["warmup"].key == key

    changes = ["warmup.negatives=[collection:easy]"]
    pipeline = Pipeline(recipe.read(str(path), changes), tmp_path)
    with pytest.raises(DenseHNError, match="run.easy.*stage warmup: the collection br"):
        pipeline.ledger.stages["collection"].work()

    # Of a folder that is used as it is, the run is there or not, and is looked at.
    changes = [f"collection.folder={run.parent}", "collection.dpr="]
    pipeline = Pipeline(recipe.read(str(path), changes), tmp_path)
    key = pipeline.ledger.stages["warmup"].key
    run.write_text("train-0 Q0 3 1 1.0 t\n")
    pipeline = Pipeline(recipe.read(str(path), changes), tmp_path)
    assert pipeline.ledger.stages["warmup"].key != key
    run.unlink()
    with pytest.raises(DenseHNError, match=r"run.hard.train.txt: the collection's run"):
        Pipeline(recipe.read(str(path), changes), tmp_path)
