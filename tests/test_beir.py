"""BEIR folders, made here by hand, and the real ones where they are."""

import json
import lzma
import tarfile
from pathlib import Path

import pytest

from dense_hn import DenseHNError, trec
from dense_hn.collections import beir, sources
from dense_hn.collections.corpus import read_corpus
from dense_hn.train import recipe
from dense_hn.train.pipeline import Pipeline

SHARED = Path(__file__).parents[2] / "shared" / "collections"

CORPUS = [
    {"_id": "d1", "title": "Lamps", "text": "They shine."},
    {"_id": "d2", "title": "", "text": "A door."},
    {"_id": "d3", "title": "", "text": "  "},
    {"_id": "d4", "text": "No title."},
]
QUERIES = [{"_id": f"q{n}", "text": f"query {n}"} for n in range(20)]
QUERIES += [{"_id": "t1", "text": "Query  3"}, {"_id": "t2", "text": "other"}]
HEADER = "query-id\tcorpus-id\tscore\n"
TRAIN = [f"q{n}\td1\t1\n" for n in range(18)] + ["q18\td3\t1\n", "q19\td2\t0\n"]
TEST = ["t1\td2\t2\n", "t1\td1\t0\n", "t2\td4\t1\n"]


@pytest.fixture
def folder(tmp_path):
    """A BEIR folder with a leak (t1 is q3), an empty document, and no dev split."""
    source = tmp_path / "source"
    (source / "qrels").mkdir(parents=True)
    for name, items in (("corpus", CORPUS), ("queries", QUERIES)):
        lines = "".join(f"{json.dumps(item)}\n" for item in items)
        (source / f"{name}.jsonl").write_text(lines)
    (source / "qrels" / "train.tsv").write_text(HEADER + "".join(TRAIN))
    (source / "qrels" / "test.tsv").write_text(HEADER + "".join(TEST))
    return source


def test_a_folder_becomes_a_collection(folder, tmp_path, caplog):
    caplog.set_level("INFO", "dense_hn")
    out = tmp_path / "out"
    sources.build("beir", folder, out)
    assert read_corpus(out / "corpus" / "corpus.jsonl") == {
        "d1": "Lamps They shine.",
        "d2": "A door.",
        "d4": "No title.",
    }
    topics = {s: trec.read_topics(out / f"topics.{s}.tsv") for s in beir.SPLITS}
    qrels = {s: trec.read_qrels(out / f"qrels.{s}.txt") for s in beir.SPLITS}
    assert topics["test"] == {"t1": "Query 3", "t2": "other"}
    assert qrels["test"] == {"t1": {"d2": 2, "d1": 0}, "t2": {"d4": 1}}
    # q3 is a test query, q18's document is empty, q19 has nothing relevant; of the 17
    # that are left, a tenth goes to dev.
    usable = {f"q{n}" for n in range(18)} - {"q3"}
    assert topics["train"].keys() | topics["dev"].keys() == usable
    assert not topics["train"].keys() & topics["dev"].keys()
    assert len(topics["dev"]) == 1
    assert "3 documents; 16 train topics, 2 test topics, 1 dev topics" in caplog.text
    for told in (
        "1 documents without text",
        "1 judgements of documents without text",
        "2 train topics without text or without a relevant document",
        "1 training topics that are evaluated on",
    ):
        assert told in caplog.text


def test_what_is_not_a_text_and_what_is_not_read(folder, tmp_path, caplog):
    """A byte order mark inside a query, and a split of another name."""
    text = (folder / "queries.jsonl").read_text().replace("other", "ot\\ufeffher")
    (folder / "queries.jsonl").write_text(text)
    (folder / "qrels" / "validation.tsv").write_text(f"{HEADER}q1\td1\t1\n")
    sources.build("beir", folder, tmp_path / "out")
    assert trec.read_topics(tmp_path / "out" / "topics.test.tsv")["t2"] == "ot her"
    assert "validation.tsv: not read: the splits of a BEIR folder are" in caplog.text


def test_a_recipe_takes_the_folder(folder, tmp_path):
    """The shipped recipe, planned: every branch with its files and dependencies."""
    read = recipe.read("nl2bash", [f"collection.beir={folder}"])
    stages = Pipeline(read, tmp_path / "out").ledger.stages
    trained = ["in-batch", "random", "bm25-static", "star", "adore", "star-adore"]
    assert [name for name in stages if name in ("warmup", *trained)] == (
        ["warmup", *trained]
    )
    assert {"bm25.train", "warmup.train", "curves"} < stages.keys()
    assert "base.train" not in stages
    stages["collection"].work()
    made = tmp_path / "out" / "work" / "nl2bash" / "collection"
    assert len(trec.read_topics(made / "topics.train.tsv")) == 16


def test_the_same_every_time(folder, tmp_path):
    for name in ("one", "two"):
        sources.build("beir", folder, tmp_path / name)
    one, two = (
        {p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    )
    assert one == two


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}', "corpus.jsonl:5: _id 'd1' occ"),
        ("corpus.jsonl", '{"_id": "d 9", "text": "x"}', "has white space"),
        ("corpus.jsonl", '{"_id": 9, "text": "x"}', "with strings"),
        ("corpus.jsonl", '{"_id": "d9"}', "with strings"),
        (
            "corpus.jsonl",
            '{"_id": "d9", "text": "\\ud83d"}',
            "corpus.jsonl:5: is no Unicode",
        ),
        ("queries.jsonl", "{", "queries.jsonl:23: broken JSON"),
        ("qrels/test.tsv", "t9\td1\t1", "test.tsv: query 't9' has no text in"),
        ("qrels/test.tsv", "t1\td9\t1", "test.tsv: docid 'd9' .query 't1'. is not"),
        ("qrels/test.tsv", "t1\td1\t1", "test.tsv:5: 'd1' is judged 0 and 1 for"),
        ("qrels/test.tsv", "t1\td1", "test.tsv:5: expected 3 columns `query-id"),
        ("qrels/test.tsv", "t1\td1\thigh", "test.tsv:5: relevance 'high' is"),
    ],
)
def test_what_is_broken_is_named(folder, tmp_path, file, line, message):
    with open(folder / file, "a") as opened:
        opened.write(f"{line}\n")
    with pytest.raises(DenseHNError, match=message):
        sources.build("beir", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("nl2bash", {"corpus": 10624, "train": 9590, "dev": 556, "test": 1195}),
        ("vaswani", {"corpus": 11429, "test": 93}),
    ],
)
def test_a_real_collection(name, counts, tmp_path):
    archive = SHARED / f"{name}.tar.xz"
    if not archive.exists():
        pytest.skip(f"{archive.name} is not beside the checkout")
    with lzma.open(archive) as opened, tarfile.open(fileobj=opened) as packed:
        packed.extractall(tmp_path, filter="data")
    sources.build("beir", tmp_path / name, tmp_path / "out")
    assert (
        len(read_corpus(tmp_path / "out" / "corpus" / "corpus.jsonl"))
        == (counts["corpus"])
    )
    for split in beir.SPLITS:
        path = tmp_path / "out" / f"topics.{split}.tsv"
        assert path.exists() == (split in counts)
        if split in ("dev", "test") and split in counts:
            assert len(trec.read_topics(path)) == counts[split]
    if name == "nl2bash":
        # Three test queries stand in train, and one of dev, but for their case.
        train = trec.read_topics(tmp_path / "out" / "topics.train.tsv")
        assert len(train) == counts["train"] - 4
