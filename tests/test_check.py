"""The check on planted collections, counted by hand, and on the real ones."""

import hashlib
import json
import lzma
import random
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from dense_hn import DenseHNError, trec
from dense_hn.check import __main__ as command
from dense_hn.check import overlap
from dense_hn.check.near import NearDuplicates
from dense_hn.collections import collection, sources
from dense_hn.collections.collection import Collection
from dense_hn.encoder import DenseEncoder

SHARED = Path(__file__).parents[2] / "shared" / "collections"
# 13 different words, of which there are 9 sequences of five.
WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen"


def planted() -> Collection:
    """A collection with one of everything."""
    return Collection(
        corpus={
            "relevant": WORDS,
            "copy": WORDS.upper().replace(" ", "  "),
            # 8 sequences of 10: a similarity of 0.8.
            "last": WORDS.replace("thirteen", "x"),
            # 4 of 14: sequences 3 to 7 have another word.
            "middle": WORDS.replace("seven", "x"),
            # A near-duplicate that is judged relevant to one of the two topics.
            "judged": f"{WORDS} y",
            "empty": " ",
            "quoted": "A Title of it\nthey asked: where is it ? and went",
            "lamp": "a lamp that shines",
        },
        topics={
            "train": {
                "t1": "where is it ?",
                "t2": "Same  text",
                "t3": "one id",
                "007": "agent",
                "12": "not judged",
                "t6": "",
                "t7": "nothing relevant",
                "t8": "SAME text",
            },
            "test": {"e1": "same TEXT", "t3": "another text", "e2": "dev too"},
            "dev": {"v1": "Dev too", "01": "one"},
        },
        qrels={
            "train": {
                "t1": {"quoted": 1},
                "t2": {"relevant": 1},
                "t3": {"lamp": 1},
                "007": {"lamp": 1},
                "t6": {"lamp": 1},
                "t7": {"lamp": 0},
                "t8": {"lamp": 1, "nowhere": 1},
                "t99": {"lamp": 1},
            },
            "test": {
                "e1": {"relevant": 1, "judged": 2, "copy": 0},
                "t3": {"lamp": 1, "nowhere": 0},
                "e2": {"middle": 1},
            },
        },
    )


def counts(report) -> dict[str, tuple[str, int]]:
    """Severity and count, by name, of what was found."""
    found = {f.name: (f.severity, f.count) for f in report.findings}
    assert len(found) == len(report.findings)
    assert all((severity == "ok") <= (n == 0) for severity, n in found.values())
    return {name: value for name, value in found.items() if value[1]}


PLANTED = {
    "judged topics without text: train": ("error", 1),
    "judged documents not in the corpus: train": ("error", 1),
    "judged documents not in the corpus: test": ("error", 1),
    "topics without a relevant document: train": ("warning", 2),
    "leading zeros": ("warning", 2),
    "shared topic ids: train, test": ("error", 1),
    "shared query texts: train, test": ("error", 1),
    "shared query texts: test, dev": ("warning", 1),
    # relevant and lamp; for e1 and t3.
    "shared relevant passages: train, test": ("warning", 2),
    "copies": ("information", 1),
    # copy; for t2 and e1.
    "unjudged copies": ("warning", 1),
    # last and judged are like relevant, for t2 and e1, and t2; copy is like judged, for
    # e1; relevant is like judged, too, but relevant to e1 itself.
    "unjudged near-duplicates": ("warning", 3),
    "documents without text": ("information", 1),
    "topics without text: train": ("information", 1),
    "titles": ("information", 1),
    "topics copied from their passage: train": ("warning", 1),
}


def test_everything_planted_is_found():
    report = command.check("planted", "beir", planted(), {}, None)
    assert not report.valid
    found = {f.name: f for f in report.findings}
    assert counts(report) == PLANTED
    for name, number in (
        ("shared query texts: train, test", "for 1 of its 3 topics"),
        ("shared relevant passages: train, test", "for 2 of its 3 topics"),
        ("unjudged copies", "for 2 topics"),
        ("unjudged near-duplicates", "for 2 topics"),
    ):
        assert number in found[name].what
    assert found["leading zeros"].examples == ["007", "01"]
    assert found["copies"].examples == ["copy repeats relevant"]
    near = found["unjudged near-duplicates"].examples
    assert near[0] == "copy is like judged (test query e1): 0.90"
    last = report.text().splitlines()[-1]
    assert last.startswith("planted: not valid: 1 judged train topics that are no ")
    assert "; 1 query texts of train that stand in test as well" in last


def test_a_folder_is_trained_on_as_it_is():
    """Where nothing is left out, a topic without a relevant document is an error."""
    report = command.check("planted", "folder", planted(), {}, None)
    name = "topics without a relevant document: train"
    assert counts(report) == PLANTED | {name: ("error", 2)}


@pytest.fixture
def clean(corpus, topics, qrels) -> Collection:
    """The fixtures' collection, its 24 topics in two splits."""
    halves = {"train": list(topics)[:12], "test": list(topics)[12:]}
    return Collection(
        corpus=dict(corpus),
        topics={s: {q: topics[q] for q in half} for s, half in halves.items()},
        qrels={s: {q: dict(qrels[q]) for q in half} for s, half in halves.items()},
    )


def test_nothing_is_found_where_nothing_is(clean):
    report = command.check("clean", "folder", clean, {}, None)
    assert counts(report) == {}
    assert report.text().endswith("clean: valid; kinds of warnings: 0")


def test_runs(clean, run):
    half = {q: dict(run[q]) for q in clean.topics["train"]}
    del half["q0"], half["q1"]
    report = command.check("clean", "folder", clean, {"half": half}, None)
    assert counts(report) == {"topics not covered: half: train": ("warning", 2)}
    half["q99"] = half["q2"]
    half["q3"]["nowhere"] = half["q4"]["nowhere"] = 0.0
    others = {"q98": run["q0"], "q97": run["q1"]}
    report = command.check("c", "folder", clean, {"half": half, "others": others}, None)
    assert counts(report) == {
        "documents not in the corpus: half": ("error", 2),
        "unknown topics: half": ("warning", 1),
        "topics not covered: half: train": ("warning", 2),
        "unknown topics: others": ("error", 2),
    }


def test_nothing_to_train_on_is_a_warning(clean):
    del clean.topics["train"], clean.qrels["train"]
    report = command.check("clean", "beir", clean, {}, None)
    assert counts(report) == {"no training": ("warning", 1)}
    assert report.valid


@pytest.mark.parametrize(
    ("dev", "test", "found"),
    [
        # 3 of 4 and 2 of 4 are as alike as they need to be.
        ("aabn", "abnn", None),
        (
            "aabn",
            "annn",
            "3 dev topics have relevant passages of train, which are 75% of dev and 25% of test",
        ),
        (
            "nnnn",
            "bbaa",
            "4 test topics have relevant passages of train, which are 0% of dev and 100% of test",
        ),
    ],
)
def test_dev_is_like_test(dev, test, found):
    """A letter is a topic, and its relevant passage; train asks for a and b."""
    splits = {"train": "ab", "dev": dev, "test": test}
    ids = {s: [f"{s}{n}" for n in range(len(asked))] for s, asked in splits.items()}
    collection = Collection(
        corpus={letter: letter for letter in "abn"},
        topics={s: {qid: f"where is {qid} ?" for qid in ids[s]} for s in splits},
        qrels={
            s: {qid: {docid: 1} for qid, docid in zip(ids[s], splits[s], strict=True)}
            for s in splits
        },
    )
    report = command.check("splits", "beir", collection, {}, None)
    of = next(f for f in report.findings if f.name == "unlike splits: dev, test")
    assert of.severity == ("warning" if found else "ok")
    if found:
        assert f"{of.count} {of.what}" == found
        assert len(of.examples) == of.count
        assert of.examples[0].endswith((": a", ": b"))


def test_titles_are_those_that_the_source_tells(tmp_path):
    write_beir(tmp_path, titles=["One", " ", ""])
    kind, found = command.read(f"beir:{tmp_path}")
    report = command.check("three", kind, found, {}, None)
    titles = next(f for f in report.findings if f.name == "titles")
    assert (titles.count, titles.what[:15]) == (1, "of 3 passages s")


def test_figures_of_documents_whose_vectors_are_added(clean, bert):
    clean.corpus |= {"cut#0": "old " * 20, "cut#1": "new " * 20}
    encoder = DenseEncoder.load(str(bert), document_weight=1, document_length=40)
    figures = command.check("clean", "folder", clean, {}, encoder).figures
    documents = figures["documents"]
    assert documents["texts"] == len(clean.corpus) - 1
    # With [CLS] and [SEP].
    assert documents["tokens"]["most"] == 42
    over = round(1 / (len(clean.corpus) - 1), 4)
    assert documents["tokens"]["share over document_length 40"] == over


@pytest.mark.parametrize(
    ("docids", "severity", "what"),
    [
        (["cut#0", "cut#1"], "information", "whose vectors are added"),
        (["cut#0"], "warning", "document_weight changes nothing"),
        (["cut#1", "cut#10", "cut#2"], "error", "'cut' do not stand one after"),
    ],
)
def test_documents_whose_vectors_are_added_are_looked_at(
    docids, severity, what, clean, bert
):
    clean.corpus |= dict.fromkeys(docids, "old lamp")
    encoder = DenseEncoder.load(str(bert), document_weight=1, document_length=40)
    report = command.check("clean", "folder", clean, {}, encoder)
    found = {finding.name: finding for finding in report.findings}
    assert found["passages of documents"].severity == severity
    assert what in found["passages of documents"].what
    report = command.check("clean", "folder", clean, {}, None)
    assert "passages of documents" not in {f.name for f in report.findings}


def test_figures(clean, bert):
    clean.qrels["train"]["q0"]["red-train"] = 0
    clean.corpus["long"] = "old " * 40
    encoder = DenseEncoder.load(str(bert))
    figures = command.check("clean", "folder", clean, {}, encoder).figures
    texts = "".join(f"{json.dumps(pair)}\n" for pair in clean.corpus.items())
    corpus = figures["corpus"]
    assert corpus["sha256"] == hashlib.sha256(texts.encode()).hexdigest()
    # [CLS] and [SEP] are tokens, too; of 49 passages one is over 32 tokens.
    assert corpus["words"]["most"] == 40 and corpus["tokens"]["most"] == 42
    assert corpus["tokens"]["share over passage_length 32"] == round(1 / 49, 4)
    train = figures["train"]
    assert train["texts"] == 12
    # where is a THING , COLOUR
    assert train["words"] == {"mean": 6.0, "median": 6.0, "99%": 6.0, "most": 6.0}
    assert train["tokens"]["mean"] == 8.0
    assert train["tokens"]["share over query_length 16"] == 0.0
    # q0 has three, the other eleven have one each.
    assert train["judgements a topic"]["mean"] == round(14 / 12, 1)
    assert train["judgements a topic"]["most"] == 3.0
    assert train["judgements of grade"] == {"0": 1, "1": 12, "2": 1}
    same = command.check("clean", "folder", clean, {}, None).figures["train"]
    assert same["qrels sha256"] == train["qrels sha256"]
    clean.qrels["train"]["q0"]["red-train"] = 1
    other = command.check("clean", "folder", clean, {}, None).figures["train"]
    assert other["qrels sha256"] != train["qrels sha256"]


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_are_those_of_a_slow_search(seed):
    """Every text with every text, among them ones with some words changed."""
    chosen = random.Random(seed)
    texts = [
        " ".join(chosen.choices("abc" if n % 2 else "abcdefghijkl", k=n % 60))
        for n in range(240)
    ]
    for text in texts[:120]:
        words = text.split()
        for _ in range(chosen.randrange(3)):
            words.insert(chosen.randrange(len(words) + 1), chosen.choice("abz"))
        texts.append(" ".join(words).upper())

    def members(text: str) -> set[str]:
        words = text.lower().split()
        longest = max(1, len(words) - 4)
        return {" ".join(words[at : at + 5]) for at in range(longest)}

    def similar(ours: set[str], theirs: set[str]) -> float:
        shared = sum(member in theirs for member in ours)
        return shared / (len(ours) + len(theirs) - shared)

    searched = NearDuplicates(texts[::2])
    all_members = [members(text) for text in texts]
    number = 0
    for text, ours in zip(texts, all_members, strict=True):
        slow = [(n, similar(ours, other)) for n, other in enumerate(all_members[::2])]
        slow = [(row, similarity) for row, similarity in slow if similarity >= 0.8]
        assert list(searched.of(text)) == slow
        number += sum(similarity < 1 for _, similarity in slow)
    assert number > 10


def write_beir(folder, titles):
    """A BEIR folder with passages of these titles and a training query a passage.

    The first query is the only test query, too, but for its case.
    """
    (folder / "qrels").mkdir(parents=True)
    numbers = range(len(titles))
    lines = {
        "corpus.jsonl": [
            {"_id": f"d{n}", "title": titles[n], "text": f"passage number {n}"}
            for n in numbers
        ],
        "queries.jsonl": [{"_id": f"q{n}", "text": f"Query {n}"} for n in numbers]
        + [{"_id": "t", "text": "query 0"}],
    }
    for name, items in lines.items():
        text = "".join(f"{json.dumps(item)}\n" for item in items)
        (folder / name).write_text(text)
    header = "query-id\tcorpus-id\tscore\n"
    train = "".join(f"q{n}\td{n}\t1\n" for n in numbers)
    (folder / "qrels" / "train.tsv").write_text(header + train)
    (folder / "qrels" / "test.tsv").write_text(f"{header}t\td1\t1\n")


def test_the_command(tmp_path):
    """Exit status, text and JSON; a run of the topics."""
    write_beir(tmp_path / "source", [""] * 12)
    (tmp_path / "run.txt").write_text("q0 Q0 d1 1 2.5 made\nt Q0 d0 1 2.5 made\n")
    line = [sys.executable, "-m", "dense_hn.check", "beir:source", "--runs", "run.txt"]
    done = subprocess.run(
        [*line, "--output", "out/report.json"],
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["valid"] is False
    told = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    told = [(w[0], int(w[1]), w[2]) for w in told if len(w) == 3 and w[1].isdigit()]
    found = [(f["severity"], f["count"], f["what"]) for f in report["findings"]]
    assert sorted(told) == sorted(found)
    assert ("warning", 11, "of 12 train topics have no hits in run.txt") in found
    errors = [f for f in report["findings"] if f["severity"] == "error"]
    assert [f["name"] for f in errors] == ["shared query texts: train, test"]
    assert errors[0]["examples"] == ["q0 and t: query 0"]


def status(monkeypatch, *argv) -> int:
    """Exit status of the command, here."""
    monkeypatch.setattr(sys, "argv", ["dense_hn.check", *argv])
    with pytest.raises(SystemExit) as exited:
        command.main()
    return int(exited.value.code)


def test_what_is_trained_on_is_valid(tmp_path, monkeypatch, capsys):
    """The folder that is made of a source with a leak, and a recipe that takes it."""
    monkeypatch.chdir(tmp_path)
    write_beir(Path("nl2bash"), [""] * 12)
    assert status(monkeypatch, "beir:nl2bash") == 1
    assert status(monkeypatch, "nl2bash") == 0
    assert (
        "1 training topics that are evaluated on, left out" in capsys.readouterr().out
    )
    sources.build("beir", "nl2bash", "made")
    assert status(monkeypatch, "folder:made") == 0
    with pytest.raises(DenseHNError, match="say folder:made, beir:made or another"):
        status(monkeypatch, "made")
    topics = trec.read_topics(collection.topics_file("made", "train"))
    topics["again"] = "QUERY 0"
    trec.write_topics(collection.topics_file("made", "train"), topics)
    assert status(monkeypatch, "folder:made") == 1
    assert "train topics without a relevant document" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["files", "dpr"])
def test_files_are_checked(kind, files, topics, qrels, monkeypatch, capsys):
    """Kinds that name files by split; the others are above, and in test_ir_datasets."""
    train = files["corpus"].with_name("train.json")
    entries = [
        {
            "question": topics[qid],
            "positive_ctxs": [{"passage_id": docid} for docid in judged],
        }
        for qid, judged in qrels.items()
    ]
    train.write_text(json.dumps(entries))
    own = [str(files["topics"]), str(files["qrels"])]
    value = {
        "corpus": str(files["corpus"]),
        "train": {"files": own}.get(kind, str(train)),
    }
    report = files["corpus"].with_name("report.json")
    spec = f"{kind}:{json.dumps(value)}"
    assert status(monkeypatch, spec, "--output", str(report)) == 0
    assert capsys.readouterr().out.endswith(": valid; kinds of warnings: 0\n")
    figures = json.loads(report.read_text())["figures"]
    assert (figures["corpus"]["texts"], figures["train"]["texts"]) == (48, 24)
    assert sum(figures["train"]["judgements of grade"].values()) == 25


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("encoder: {", "encoder: {poling: mean, ", "encoder: unknown setting 'poling'"),
        ("star: {", "star: {learning_rat: 1, ", "stage star: .*'learning_rat'"),
    ],
)
def test_what_training_refuses_of_a_recipe_is_an_error(
    old, new, message, small_recipe, monkeypatch, capsys
):
    """Which is told beside all that is found of its collection; nothing is written."""
    empty = small_recipe.parent / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert status(monkeypatch, str(small_recipe)) == 0
    text = small_recipe.read_text()
    assert old in text
    small_recipe.write_text(text.replace(old, new, 1))
    capsys.readouterr()
    assert status(monkeypatch, str(small_recipe)) == 1
    told = capsys.readouterr().out
    assert re.search(f"error .*that training refuses: {message}", told)
    assert "train" in told.split("error ")[0]
    assert not list(empty.iterdir())


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(DenseHNError, match="no recipe 'nothing'"):
        command.read("nothing")
    with pytest.raises(DenseHNError, match="unknown kind of collection 'beri'"):
        command.read("beri:folder")


def real(name, folder) -> Collection:
    """A collection from beside the checkout, unpacked into a folder."""
    archive = SHARED / f"{name}.tar.xz"
    if not archive.exists():
        pytest.skip(f"{archive.name} is not beside the checkout")
    with lzma.open(archive) as opened, tarfile.open(fileobj=opened) as packed:
        packed.extractall(folder, filter="data")
    return command.read(f"beir:{folder / name}")[1]


@pytest.mark.parametrize(
    ("name", "leaks"),
    [
        # Distinct query texts, as the notes that come with the collections count them.
        ("wikitablequestions", {"train, test": 54, "train, dev": 40}),
        ("nl2bash", {"train, test": 3, "train, dev": 1}),
    ],
)
def test_leaks_of_real_collections(name, leaks, tmp_path):
    found = real(name, tmp_path)
    errors = [f for f in overlap.findings(found) if f.severity == "error"]
    assert {f.name: f.count for f in errors} == (
        {f"shared query texts: {pair}": number for pair, number in leaks.items()}
    )
    collection.prepare(found)
    assert all(f.severity != "error" for f in overlap.findings(found))
    # Of wikitablequestions' tables those of dev are train's, those of test are not.
    unlike = next(f for f in overlap.findings(found) if f.name.startswith("unlike"))
    assert (unlike.severity == "warning") == (name == "wikitablequestions")


def test_what_the_page_prints(tmp_path):
    """integrations/pyserini/inputs.md, but for the lines that it leaves out."""
    page = (Path(__file__).parents[1] / "integrations/pyserini/inputs.md").read_text()
    printed = page.split("python -m dense_hn.check beir:nl2bash\n")[1].split("```")[0]
    found = real("nl2bash", tmp_path)
    lines = command.check("beir:nl2bash", "beir", found, {}, None).text().splitlines()
    shown = [line for line in printed.splitlines() if line != "…"]
    places = [lines.index(line) for line in shown if line]
    # The same advice stands below both errors.
    assert sorted(set(places)) == list(dict.fromkeys(places))
    assert places[0] == 0
    assert places[-1] == len(lines) - 1


def test_scifact(tmp_path):
    """Its ids are in order; two claims of BEIR's test split are in train as well."""
    found = real("scifact", tmp_path)
    report = command.check("scifact", "beir", found, {}, None)
    assert counts(report) == {
        "shared query texts: train, test": ("error", 2),
        "shared relevant passages: train, test": ("warning", 181),
        "titles": ("information", 5183),
        "topics copied from their passage: train": ("information", 1),
    }
    collection.prepare(found)
    assert command.check("scifact", "beir", found, {}, None).valid
