"""The real `pyserini.search.faiss` on what the quickstart exports.

Runs the documented command lines, the quickstart's in processes of their own, and compares
Pyserini's run with ours: same docids, scores to 1e-4, for every topic and hit.
"""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from compare_runs import compare
from replay import run_here
from transformers import RobertaTokenizer

from dense_hn import java, pyserini, trec
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.export.folder import write_index
from dense_hn.mine import retrieve
from dense_hn.search_command import search_command

SMALL = [
    "collection.pydoc=[json,http,logging]",
    "star.max_steps=2",
    "adore.max_steps=4",
]
SMALL += ["evaluate.hits=100", "encoder.passage_length=64", "star.passage_length=64"]
SMALL += ["star.per_device_train_batch_size=8", "adore.per_device_train_batch_size=8"]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `python -m …`, with another environment where one is given."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory) -> tuple[Path, str]:
    """The quickstart at a reduced size: its output folder, and what it printed."""
    root = tmp_path_factory.mktemp("quickstart")
    done = command(
        "dense_hn.train", "quickstart", "--output", str(root), "--set", *SMALL
    )
    return root, done.stdout


def printed_command(report: str, system: str, output: Path) -> list[str]:
    """The printed search command's arguments, with another output."""
    lines = report.splitlines()
    words = lines[lines.index(f"{system} in Pyserini:") + 1].split()
    assert words[:4] == ["python", "-m", "dense_hn.pyserini", "search.faiss"]
    words[words.index("--output") + 1] = str(output)
    return words[4:]


def assert_same_run(ours: trec.Run, theirs: trec.Run) -> None:
    """Same topics and docids, scores to 1e-4 (or 1e-6 of themselves, for 32-bit floats
    above 100), the same order but for scores that are equal to that precision.
    """
    found = compare(ours, theirs, depth=100)
    assert found["topics"] == len(ours)
    assert found["hits"] == sum(map(len, ours.values()))
    assert found["topics_in_one"] == found["docids_in_one"] == 0
    for qid, hits in ours.items():
        for docid, score in hits.items():
            assert theirs[qid][docid] == pytest.approx(score, rel=1e-6, abs=1e-4)
        mine, other = trec.ranked(hits), trec.ranked(theirs[qid])
        for docid, there in zip(mine, other, strict=True):
            assert hits[docid] == pytest.approx(hits[there], rel=1e-6, abs=3e-6)


@pytest.mark.parametrize("system", ["star", "adore"])
def test_the_printed_command_finds_what_we_found(quickstart, tmp_path, system):
    root, report = quickstart
    arguments = printed_command(report, system, tmp_path / "run.txt")
    if system == "adore":
        # A Java that is too old, or none, as on many machines.
        command("dense_hn.pyserini", "search.faiss", *arguments, JAVA_HOME="/nowhere")
    else:
        run_here("dense_hn.pyserini", ["search.faiss", *arguments])
    ours = trec.read_run(root / "runs" / "quickstart" / f"{system}.test.txt")
    assert all(len(hits) == 100 for hits in ours.values())
    assert_same_run(ours, trec.read_run(tmp_path / "run.txt"))


def full_jdk() -> str | None:
    """The home of a JDK 21+ that has the module Pyserini asks for."""
    homes = [os.environ.get("JAVA_HOME", "")]
    homes += map(str, sorted(Path("/usr/lib/jvm").glob("*")))
    for home in filter(None, homes):
        modules = java.release(Path(home)).get("MODULES", "")
        version = java.java_version(Path(home))
        if version and version >= java.JAVA and "jdk.incubator.vector" in modules:
            return home
    return None


def test_the_plain_command_works_with_a_full_jdk(quickstart, tmp_path):
    home = full_jdk()
    if home is None:
        pytest.skip("no JDK 21+ with jdk.incubator.vector at JAVA_HOME or /usr/lib/jvm")
    root, report = quickstart
    arguments = printed_command(report, "adore", tmp_path / "run.txt")
    command("pyserini.search.faiss", *arguments, JAVA_HOME=home)
    ours = trec.read_run(root / "runs" / "quickstart" / "adore.test.txt")
    assert_same_run(ours, trec.read_run(tmp_path / "run.txt"))


def test_a_second_call_does_nothing_and_prints_the_same_table(quickstart):
    root, report = quickstart
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    again = command(
        "dense_hn.train", "quickstart", "--output", str(root), "--set", *SMALL
    ).stdout
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()} == before
    table = report[report.index("quickstart, test topics") :]
    assert again.endswith(table)
    stages = again.partition("all ")[0].splitlines()[1:]
    assert len(stages) == 17
    assert all(line.endswith("(done before)") for line in stages)


def test_the_table_is_what_pyserinis_own_evaluation_says(quickstart):
    """`pyserini.eval.trec_eval` runs `java` from PATH, which the runner takes care of."""
    root, _ = quickstart
    folder = root / "runs" / "quickstart"
    qrels = root / "qrels" / "quickstart" / "test.txt"
    rows = json.loads((folder / "table.test.json").read_text())["rows"]
    for row, system in zip(rows, ("bm25", "base", "star", "adore"), strict=True):
        done = command(
            *("dense_hn.pyserini", "eval.trec_eval", "-c"),
            *("-m", "ndcg_cut.10", "-m", "recall.100"),
            *(str(qrels), str(folder / f"{system}.test.txt")),
            PATH="/usr/bin:/bin",
        )
        lines = [line.split() for line in done.stdout.splitlines()]
        theirs = {words[0]: float(words[2]) for words in lines if words[1:2] == ["all"]}
        ours = {name: cell["mean"] for name, cell in row["cells"].items()}
        assert ours["nDCG@10"] == pytest.approx(theirs["ndcg_cut_10"], abs=6e-5)
        assert ours["R@100"] == pytest.approx(theirs["recall_100"], abs=6e-5)


def encoder_folder(encoder: DenseEncoder, folder: Path) -> Path:
    """Where an encoder is saved in a folder, under a name that Pyserini recognises."""
    return folder / ("ance" if encoder.settings.architecture == "ance" else "encoder")


def searched(encoder: DenseEncoder, folder: Path) -> trec.Run:
    """The run of the command that is printed for what was saved in a folder."""
    arguments = search_command(
        encoder.settings,
        encoder=encoder_folder(encoder, folder),
        index=folder / "index",
        topics=folder / "topics.tsv",
        output=folder / "run.txt",
        hits=20,
    )
    run_here("dense_hn.pyserini", ["search.faiss", *arguments])
    return trec.read_run(folder / "run.txt")


PLAIN = {"pooling": "cls", "l2_norm": False, "query_prefix": "where is"}


@pytest.mark.parametrize(
    ("name", "settings"), [("roberta", {}), ("bert", {}), ("bert", PLAIN)]
)
def test_both_layouts_in_pyserini(name, settings, corpus, topics, tmp_path, request):
    """`ance`, which Pyserini 1.6 loads only when mended, and `auto` in two ways."""
    encoder = DenseEncoder.load(str(request.getfixturevalue(name)), **settings)
    encoder.save(encoder_folder(encoder, tmp_path))
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    (tmp_path / "index").mkdir()
    write_index(vectors, tmp_path / "index", "flat", {})
    # A query longer than any limit, and capitals, which ance keeps under transformers 5.
    topics = topics | {"long": "where is the red lamp " * 40, "capital": "The RED Lamp"}
    trec.write_topics(tmp_path / "topics.tsv", topics)
    theirs = searched(encoder, tmp_path)
    topics = trec.read_topics(tmp_path / "topics.tsv")
    ours = dict(retrieve(encoder, vectors, topics, 20))
    assert_same_run(ours, theirs)


def test_initialisation_leaves_a_mended_ance_alone(roberta):
    """transformers 5.0 to 5.12 initialise after loading, and Pyserini's would do it all
    over: a random head, without a word."""
    java.start_jvm()
    pyserini.mend_ance()
    kind = importlib.import_module("pyserini.encode._ance").AnceEncoder
    model = kind.from_pretrained(roberta)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for module in model.modules():
        model._init_weights(module)
    after = model.state_dict()
    assert after.keys() == DenseEncoder.load(str(roberta)).model.state_dict().keys()
    assert [name for name in after if not after[name].equal(before[name])] == []


# No <pad>: Pyserini's ance masks it where it stands in a text.
OLD_TOPICS = {
    "lower": "where is a red lamp",
    "capital": "Where is a RED Lamp",
    "accent": "Où est la Lampe Dorée , ÉLAN",
    "spaces": "where  is   a  lamp",
    "mask": "where is a <mask> lamp",
    "MASK": "Where is a <MASK>lamp , <unk>  Red",
    "first": "<s> the Lamp",
    "last": "the Lamp </s>",
    "adjacent": "a<mask><mask> </s>b",
    "long": "WHERE is the red <mask> lamp " * 20 + "?",
}


@pytest.mark.parametrize("name", ["RobertaDot_NLL_LN", "RobertaDot"])
def test_an_old_checkpoint_in_pyserini(name, old_checkpoint, corpus, topics, tmp_path):
    """The runner gives Pyserini's ance the tokenization of transformers 2.x."""
    encoder = DenseEncoder.load(str(old_checkpoint(name)))
    encoder.save(encoder_folder(encoder, tmp_path))
    corpus = {docid: text.title() for docid, text in corpus.items()}
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    (tmp_path / "index").mkdir()
    write_index(vectors, tmp_path / "index", "flat", {})
    topics = topics | OLD_TOPICS
    # By hand, since write_topics leaves one blank of several.
    lines = "".join(f"{qid}\t{text}\n" for qid, text in topics.items())
    (tmp_path / "topics.tsv").write_text(lines)
    theirs = searched(encoder, tmp_path)
    assert trec.read_topics(tmp_path / "topics.tsv") == topics
    assert_same_run(dict(retrieve(encoder, vectors, topics, 20)), theirs)

    # What Pyserini itself would have taken: the same for the lower-case topics only.
    plain = RobertaTokenizer.from_pretrained(tmp_path / "ance")
    settings = replace(encoder.settings, passage_encoder=vectors.encoder)
    plain = DenseEncoder(encoder.model, plain, settings)
    plain = dict(retrieve(plain, vectors, topics, 20))
    different = {qid for qid in topics if plain[qid] != pytest.approx(theirs[qid])}
    assert different == OLD_TOPICS.keys() - {"lower", "spaces"}
