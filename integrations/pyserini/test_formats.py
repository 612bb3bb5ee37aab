"""Our readers against Pyserini's own: corpora, topics, and topics and qrels by name."""

import gzip
import json
import os
import subprocess
import sys

import pytest

from dense_hn import java, trec
from dense_hn.collections.corpus import read_corpus


@pytest.fixture(scope="module", autouse=True)
def jvm():
    """Pyserini's JVM in this process."""
    java.start_jvm("-Xmx2g")


def pyserinis_topics(path) -> dict[str, str]:
    """What a Pyserini search takes from a topics file, ids as in its run."""
    from pyserini.query_iterator import DefaultQueryIterator

    topics = DefaultQueryIterator.from_topics(str(path))
    return {str(qid): text for qid, text in topics}


def test_lucene_reads_the_same_documents(tmp_path, corpus):
    from jnius import autoclass

    documents = [{"id": d, "contents": f"{c}\n“x”", "n": 1} for d, c in corpus.items()]
    documents[0]["id"] = 7
    lines = [json.dumps(document, ensure_ascii=False) for document in documents]
    folder = tmp_path / "corpus"
    (folder / "inside").mkdir(parents=True)
    (folder / "one.jsonl").write_text("\n".join(lines[:10]) + "\n")
    packed = gzip.compress("\n".join(lines[10:20]).encode())
    (folder / "two.jsonl.gz").write_bytes(packed)
    (folder / "inside" / "array.json").write_text(
        json.dumps(documents[20:30], indent=1)
    )
    packed = gzip.compress(json.dumps(documents[30:40]).encode())
    (folder / "inside" / "array.json.gz").write_bytes(packed)
    spread = "\n".join(json.dumps(document, indent=2) for document in documents[40:])
    (folder / "objects.json").write_text(spread)
    (folder / "README.txt").write_text("{}")

    path = autoclass("java.nio.file.Paths").get(str(folder))
    collection = autoclass("io.anserini.collection.JsonCollection")(path)
    theirs = {}
    for file in collection.getSegmentPaths().toArray():
        segment = collection.createFileSegment(file).iterator()
        while segment.hasNext():
            document = segment.next()
            theirs[document.id()] = document.contents()
    assert len(theirs) == 48
    assert read_corpus(folder) == theirs


TREC = """<top>
<num> Number: 301
<title> International   Organized
Crime

<desc> Description:
Which?

<narr> Narrative:
None.
</top>

<top>
<num>302</num>
<title>Poliomyelitis and Post-Polio</title>
<desc>Is it?</desc>
<narr>None.</narr>
</top>
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "301\tone  “x”\nb\ttwo\n"),
        ("a.trec", TREC),
        ("a.json", '{"301": {"title": "one “x”"}, "007": {"title": "two"}}'),
        ("a.jsonl", '{"qid": 301, "title": "one"}\n{"id": "b", "title": "two"}\n'),
    ],
)
def test_pyserini_reads_the_same_topics(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    ours = trec.read_topics(tmp_path / name)
    assert len(ours) == 2
    assert ours == pyserinis_topics(tmp_path / name)


def test_ids_that_are_all_digits_reach_pyserini_unchanged(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("007\tone\n7\ttwo\nx\tthree “x”\n")
    ours = trec.read_topics(path)
    assert pyserinis_topics(path).keys() == {"7", "x"}
    copy = trec.for_pyserini(path, tmp_path / "t.json")
    assert pyserinis_topics(copy) == ours


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("beir/a.tsv", "301\tone  “x”\nb\ttwo\n"),
        ("beir/a.trec", TREC),
        ("beir/a.jsonl", '{"_id": "1", "text": "one"}\n{"id": "b", "title": "two"}\n'),
        ("a.txt", TREC),
        ("a.queries", "301\tone\nb\ttwo\n"),
    ],
)
def test_topics_reach_pyserini_as_we_read_them(tmp_path, name, text):
    """Under `beir` it reads all but .json as TSV."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    ours = trec.read_topics(path)
    assert len(ours) == 2
    copy = trec.for_pyserini(path, tmp_path / "beir" / "t.json")
    assert pyserinis_topics(copy) == ours
    assert (copy == path) == (name == "beir/a.tsv")


def test_topics_and_qrels_by_name(tmp_path):
    """From Pyserini's cache; without them, what to put where."""
    (tmp_path / "c.jsonl").write_text('{"id": "d1", "contents": "x"}\n')
    value = {"corpus": str(tmp_path / "c.jsonl")}
    value |= {"test": ["pyserini:dl19-passage", "pyserini:dl19-passage"]}
    command = [
        sys.executable,
        "-m",
        "dense_hn.collections",
        f"files:{json.dumps(value)}",
    ]
    command += ["--output", str(tmp_path / "out")]
    # A home of its own, and nothing to fetch from.
    options = f"-Duser.home={tmp_path} -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9"
    environment = os.environ | {"JAVA_TOOL_OPTIONS": options}
    cache = tmp_path / ".cache" / "pyserini" / "topics-and-qrels"
    cache.mkdir(parents=True)

    def build():
        return subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment
        )

    (cache / "topics.dl19-passage.txt").write_text("19335\tanthropology\n047\tother\n")
    done = build()
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "error: pyserini:dl19-passage: Pyserini could not fetch qrels.dl19-passage.txt; "
        f"put it into {cache}, or name a file of your own"
    )
    (cache / "qrels.dl19-passage.txt").write_text("19335 Q0 d1 2\n")
    assert build().returncode == 0
    assert trec.read_topics(tmp_path / "out" / "topics.test.tsv") == {
        "19335": "anthropology"
    }
    assert trec.read_qrels(tmp_path / "out" / "qrels.test.txt") == {"19335": {"d1": 2}}

    command[3] = command[3].replace("dl19-passage", "dl19-pasage")
    assert "unknown topics of Pyserini 'dl19-pasage'; did you mean" in build().stderr
