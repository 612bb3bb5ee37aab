"""Packages against an independent reading, and every refusal with its exact line."""

import bz2
import gzip
import io
import json
import shlex
import sys
import tarfile
import zipfile
from itertools import accumulate
from pathlib import Path

import pytest
import pytrec_eval

from dense_hn import DenseHNError, trec
from dense_hn.submit import __main__ as submit
from dense_hn.submit import archives, packages, runs

ID = "20261122-made-here"
DEV = f"submissions/{ID}/dev.txt.bz2"
EVAL = f"submissions/{ID}/eval.txt.bz2"
META = f"submissions/{ID}-metadata.json"
PAGE = Path(__file__).parents[1] / "integrations" / "pyserini" / "submit.md"


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the command line; returns exit status and what it printed, in lines."""

    def call(*arguments) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["dense_hn.submit", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            submit.main()
        except SystemExit as left:
            status = left.code
        return status, capsys.readouterr().out.splitlines()

    return call


@pytest.fixture
def given(files, corpus, topics, run):
    """Options that name dev and eval topics, and the corpus's docids and some more."""
    folder = files["run"].parent
    half = list(topics)[::2]
    trec.write_topics(folder / "eval.tsv", {qid: topics[qid] for qid in half})
    trec.write_run(folder / "eval.txt", {qid: run[qid] for qid in half}, "made")
    docids = [*corpus, *(f"other-{n}" for n in range(1100))]
    (folder / "docids").write_text("".join(f"{docid}\n" for docid in docids))
    known = ["--dev_topics", files["topics"], "--eval_topics", folder / "eval.tsv"]
    return [*known, "--docids", folder / "docids"]


@pytest.fixture
def make(call, files, given, tmp_path):
    """Makes a package in a folder."""

    def make(folder: Path, *more, board: str = "msmarco-passage"):
        made = ["--dev", files["run"], "--eval", tmp_path / "eval.txt", "--id", ID]
        made += ["--team", "A team, Élan", "--model_description", "STAR"]
        return call(board, *given, *made, *more, "--output", folder)

    return make


def unpack(folder: Path, name: str = DEV) -> list[str]:
    return bz2.decompress((folder / name).read_bytes()).decode().splitlines()


def pack(folder: Path, lines: list[str], name: str = DEV) -> None:
    text = "".join(f"{line}\n" for line in lines)
    (folder / name).write_bytes(bz2.compress(text.encode()))


def test_made_package_is_the_run_in_trec_evals_order(tmp_path, make, run, call, given):
    """Each document relevant in turn: trec_eval's reciprocal rank gives its place."""
    status, said = make(
        tmp_path / "p", "--code", "https://x.org", "--type", "reranking"
    )
    assert status == 0
    assert "dev 480 hits of 24 topics, eval 240 hits of 12 topics" in said[0]
    assert f"  eval/pack.sh {ID}" in said
    rows = [line.split("\t") for line in unpack(tmp_path / "p")]
    assert list(dict.fromkeys(qid for qid, _, _ in rows)) == list(run)
    for qid in list(run)[:3]:
        for _, docid, rank in (row for row in rows if row[0] == qid):
            scorer = pytrec_eval.RelevanceEvaluator({qid: {docid: 1}}, {"recip_rank"})
            scored = scorer.evaluate({qid: run[qid]})[qid]["recip_rank"]
            assert scored == pytest.approx(1 / int(rank))
    assert {line.split("\t")[0] for line in unpack(tmp_path / "p", EVAL)} == set(
        list(run)[::2]
    )
    assert json.loads((tmp_path / "p" / META).read_text(encoding="utf-8")) == {
        "team": "A team, Élan",
        "model_description": "STAR",
        "paper": "",
        "code": "https://x.org",
        "type": "reranking",
    }
    found = sorted(p for p in (tmp_path / "p").rglob("*") if p.is_file())
    assert [str(p.relative_to(tmp_path / "p")) for p in found] == [DEV, EVAL, META]
    status, said = call("msmarco-passage", *given, "--check", tmp_path / "p")
    assert status == 0
    counts = "dev 480 hits of 24 topics, eval 240 hits of 12 topics"
    assert said == [f"{tmp_path / 'p'}: {ID}: {counts}; no problem found"]


def test_commands_of_the_page(tmp_path, monkeypatch, call, files, given, run, topics):
    """Every command of integrations/pyserini/submit.md, as written."""
    monkeypatch.chdir(tmp_path)
    for name in ("dev", "eval", "dl20"):
        trec.write_run(f"runs/{name}.txt", run, "made")
        trec.write_topics(f"{name}.tsv", topics)
    Path("indexes/adore").mkdir(parents=True)
    Path("docids").rename("indexes/adore/docid")
    blocks = PAGE.read_text(encoding="utf-8").split("```bash\n")[1:]
    text = "".join(block.partition("```")[0] for block in blocks)
    commands = text.replace("\\\n", "").splitlines()
    assert len(commands) == 4
    for command in commands:
        start, m, module, *arguments = shlex.split(command)
        assert (start, m, module) == ("python", "-m", "dense_hn.submit")
        assert call(*arguments)[0] == 0


def test_packages_are_the_same_bytes_and_leave_others_alone(tmp_path, make):
    (tmp_path / "a" / "submissions").mkdir(parents=True)
    other = tmp_path / "a" / "submissions" / "other.enc"
    other.write_text("theirs")
    for folder in ("a", "a", "b"):
        assert make(tmp_path / folder)[0] == 0
    assert other.read_text() == "theirs"
    other.unlink()
    a, b = (
        {p.relative_to(top): p.read_bytes() for p in top.rglob("*") if p.is_file()}
        for top in (tmp_path / "a", tmp_path / "b")
    )
    assert len(a) == 3
    assert a == b


def test_runs_are_cut_to_what_the_board_takes(tmp_path, make, files, run, caplog):
    qid = next(iter(run))
    long = {f"other-{n}": float(-n) for n in range(1001)}
    trec.write_run(files["run"], run | {qid: long}, "made")
    assert make(tmp_path / "p")[0] == 0
    assert f"{files['run']}: cut to 1000 hits a topic, without 1" in caplog.text
    first = [line for line in unpack(tmp_path / "p") if line.startswith(f"{qid}\t")]
    assert first == [f"{qid}\tother-{n}\t{n + 1}" for n in range(1000)]
    assert make(tmp_path / "d", board="msmarco-document")[0] == 0
    first = [line for line in unpack(tmp_path / "d") if line.startswith(f"{qid}\t")]
    assert first == [f"{qid}\tother-{n}\t{n + 1}" for n in range(100)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--id", "made-here"], "--id: id 'made-here' is not `yyyymmdd-name`"),
        (["--id", "20260231-x"], "--id: id '20260231-x' does not begin with a date"),
        (["--team", " "], "metadata: 'team' is empty"),
        (["--embargo_until", "2027-01-01"], "is not a date `yyyy/mm/dd`"),
        (["--embargo_until", "2027/08/22"], "more than nine months after 2026/11/22"),
        (["--dev_topics", "eval.tsv"], "run.txt: query 'q1' has no text in"),
        (["--docids", "few"], "run.txt: docid 'red-lamp' (query"),
        (
            ["--check", "p"],
            "--dev, --eval, --id, --team, --model_description, --output",
        ),
    ],
)
def test_making_refuses_before_anything_is_written(
    tmp_path, monkeypatch, make, corpus, more, message
):
    monkeypatch.chdir(tmp_path)
    Path("few").write_text("".join(f"{d}\n" for d in corpus if d != "red-lamp"))
    with pytest.raises(DenseHNError) as error:
        make(tmp_path / "p", *more)
    assert message in str(error.value)
    assert not (tmp_path / "p").exists()


def test_missing_options_are_named(call, given):
    with pytest.raises(DenseHNError, match="--dev, --eval, --id, .* is missing"):
        call("msmarco-passage", *given)


def test_longest_embargo_is_the_boards_example(tmp_path, make):
    """Of 2020/11/01 until 2021/07/31, says the board's README."""
    first = ["--id", "20201101-x", "--embargo_until"]
    assert make(tmp_path / "p", *first, "2021/07/31")[0] == 0
    with pytest.raises(DenseHNError, match="more than nine months"):
        make(tmp_path / "p", *first, "2021/08/01")


def without(lines, *numbers):
    return [line for n, line in enumerate(lines, 1) if n not in numbers]


def with_line(lines, number, change):
    return [change(x) if n == number else x for n, x in enumerate(lines, 1)]


def last_column(text):
    return lambda line: "\t".join([*line.split("\t")[:-1], text])


def many(lines):
    """The first topic with 1,001 hits."""
    qid = lines[0].split("\t")[0]
    more = [f"{qid}\tother-{n}\t{n}" for n in range(21, 1002)]
    return [*lines[:20], *more, *lines[20:]]


# Every topic has 20 lines.
MSMARCO = {
    "unknown topic": (
        lambda x: [*x[:20], "q99\tred-lamp\t1", *x[20:]],
        "21: topic 'q99' is not among the topics",
    ),
    "unknown docid": (
        lambda x: with_line(x, 33, lambda a: "\t".join([a.split("\t")[0], "none\t13"])),
        "33: docid 'none' is not in the corpus",
    ),
    "duplicate docid": (
        lambda x: with_line(x, 25, lambda _: last_column("5")(x[20])),
        "25: {docid!r} again for topic 'q1'",
    ),
    "too many hits": (many, "1001: topic 'q0' has more than 1000 hits"),
    "rank gap": (
        lambda x: without(x, 7),
        "7: rank 8 of topic 'q0' where 7 comes next",
    ),
    "rank twice": (
        lambda x: with_line(x, 3, last_column("2")),
        "3: rank 2 of topic 'q0' where 3 comes next",
    ),
    "rank from 0": (
        lambda x: with_line(x, 21, last_column("0")),
        "21: rank 0 of topic 'q1' where 1 comes next",
    ),
    "rank from 2": (
        lambda x: without(x, 21),
        "21: rank 2 of topic 'q1' where 1 comes next",
    ),
    "rank no number": (
        lambda x: with_line(x, 22, last_column("2.0")),
        "22: rank '2.0' is not a whole number",
    ),
    "rank negative": (
        lambda x: with_line(x, 40, last_column("-20")),
        "40: rank '-20' is not a whole number",
    ),
    "two columns": (
        lambda x: with_line(x, 30, lambda a: a.rpartition("\t")[0]),
        "30: expected `qid<TAB>docid<TAB>rank`, got",
    ),
    "blanks for tabs": (
        lambda x: with_line(x, 21, lambda a: a.replace("\t", " ")),
        "21: expected `qid<TAB>docid<TAB>rank`, got",
    ),
    "blank in a column": (
        lambda x: with_line(x, 21, lambda a: f"{a} "),
        "21: expected `qid<TAB>docid<TAB>rank`, got",
    ),
    "a TREC run": (
        lambda x: with_line(x, 480, lambda _: "q23 Q0 red-lamp 20 1.0 made"),
        "480: expected `qid<TAB>docid<TAB>rank`, got",
    ),
    "empty line": (
        lambda x: [*x[:40], "", *x[40:]],
        "41: expected `qid<TAB>docid<TAB>rank`, got ''",
    ),
    "topic not together": (
        lambda x: [*x[:13], *x[20:40], *x[13:20], *x[40:]],
        "34: topic 'q0' again, after other topics; it began on line 1",
    ),
}


@pytest.mark.parametrize("case", MSMARCO)
def test_check_names_the_line(tmp_path, make, call, given, case):
    change, message = MSMARCO[case]
    make(tmp_path / "p")
    lines = unpack(tmp_path / "p")
    pack(tmp_path / "p", change(lines))
    status, said = call("msmarco-passage", *given, "--check", tmp_path / "p")
    assert status == 1
    assert len(said) == 1
    expected = message.format(docid=lines[20].split("\t")[1])
    assert said[0].startswith(f"{tmp_path / 'p' / DEV}:{expected}")


def test_document_board_takes_a_hundred(tmp_path, make, call, given):
    make(tmp_path / "p", board="msmarco-document")
    pack(tmp_path / "p", many(unpack(tmp_path / "p")))
    status, said = call("msmarco-document", *given, "--check", tmp_path / "p")
    assert status == 1
    assert said == [f"{tmp_path / 'p' / DEV}:101: topic 'q0' has more than 100 hits"]


def test_all_problems_are_reported_a_few_of_each_kind(tmp_path, make, call, given):
    make(tmp_path / "p")
    lines = unpack(tmp_path / "p")
    for n in range(13):
        lines[20 * n + 4] = last_column("x")(lines[20 * n + 4])
    pack(tmp_path / "p", [*lines, "unknown\tnone\t1"])
    pack(tmp_path / "p", without(unpack(tmp_path / "p", EVAL), 2), EVAL)
    status, said = call("msmarco-passage", *given, "--check", tmp_path / "p")
    assert status == 1
    dev, eval_ = tmp_path / "p" / DEV, tmp_path / "p" / EVAL
    assert [line.split(": ")[0] for line in said] == [
        *(f"{dev}:{20 * n + 5}" for n in range(10)),
        f"{dev}:481",
        f"{dev}:481",
        "… and 4 more",
    ]
    assert said[-1] == "… and 4 more: wrong rank"
    assert not any(str(eval_) in line for line in said)


def test_broken_files(tmp_path, make, call, given, monkeypatch):
    """Bytes that are no UTF-8, no bz2 or half of one, no line at all, and far too many."""
    make(tmp_path / "p")
    file = tmp_path / "p" / DEV
    whole = file.read_bytes()
    lines = bz2.decompress(whole).splitlines(keepends=True)

    def check(content: bytes) -> list[str]:
        file.write_bytes(content)
        status, said = call("msmarco-passage", *given, "--check", tmp_path / "p")
        assert status == 1
        return [line.removeprefix(str(file)) for line in said]

    lines[16] = lines[16].replace(b"\t", b"\xff\t", 1)
    assert check(bz2.compress(b"".join(lines))) == [
        ":17: not UTF-8 (invalid start byte at byte 2)"
    ]
    (said,) = check(whole[: len(whole) // 2])
    assert said.startswith(":1: cannot be read from here on")
    # A second stream that is cut: the lines of the first are read.
    (said,) = check(whole + bz2.compress(b"more")[:-4])
    assert said.startswith(":481: cannot be read from here on")
    (said,) = check(b"".join(lines))
    assert said.startswith(":1: cannot be read from here on")
    assert check(bz2.compress(b"")) == [": an empty file"]
    (said,) = check(bz2.compress(b"\0" * 10**7))
    assert said.startswith(":1: a line of more than 1000 bytes")
    monkeypatch.setattr(runs, "FILE_SIZE", 100)
    sizes = accumulate(map(len, bz2.decompress(whole).splitlines(keepends=True)))
    above = next(number for number, size in enumerate(sizes, 1) if size > 100)
    said = check(whole)
    assert said[0].startswith(f":{above}: ")
    assert "or more than 100 bytes in all" in said[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"team": "x"\n"paper"', ":2: broken JSON"),
        ("[" * 100000, ": broken JSON (nested too deeply)"),
        ("[]", ": a list, not a JSON object"),
        ("9" * 5000, ": broken JSON (Exceeds the limit (4300 digits)"),
        (b'{\n"team": "\xff"}', ":2: not UTF-8"),
        ({"team": None}, ": 'team' is missing"),
        ({"paper": None}, ": 'paper' is missing"),
        ({"team": 7}, ": 'team' is a int, not a string"),
        ({"model_description": ""}, ": 'model_description' is empty"),
        ({"type": "ranking"}, ": type 'ranking' is not one of 'full ranking', 'rer"),
        ({"embargo_untill": "2027/01/01"}, ": unknown key 'embargo_untill'"),
        ({"embargo_until": "2027/13/01"}, ": embargo_until '2027/13/01' is not a da"),
        ({"embargo_until": "2028/01/01"}, ": embargo_until '2028/01/01' is more tha"),
    ],
)
def test_check_of_metadata(tmp_path, make, call, given, text, message):
    make(tmp_path / "p")
    file = tmp_path / "p" / META
    if isinstance(text, dict):
        changed = json.loads(file.read_text(encoding="utf-8")) | text
        text = json.dumps({k: v for k, v in changed.items() if v is not None})
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    status, said = call("msmarco-passage", *given, "--check", tmp_path / "p")
    assert status == 1
    assert len(said) == 1
    assert said[0].startswith(f"{file}{message}")


def renamed(old: str, new: str):
    def change(folder: Path) -> None:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(folder / new)

    return change


def linked(folder: Path) -> None:
    (folder / EVAL).rename(folder.parent / "elsewhere")
    (folder / EVAL).symlink_to(folder.parent / "elsewhere")


# What is changed, and the beginnings of all lines that are said.
LAYOUT = {
    "missing run": (
        lambda folder: (folder / EVAL).unlink(),
        [f"/{EVAL}: this file is missing"],
    ),
    "missing metadata": (
        lambda folder: (folder / META).unlink(),
        [f"/{META}: this file is missing"],
    ),
    "extra file": (
        lambda folder: (folder / f"submissions/{ID}/notes").write_text("x"),
        [f"/submissions/{ID}/notes: this file does not belong here"],
    ),
    "wrong name": (
        renamed(DEV, DEV.replace("txt", "tsv")),
        [f"/{DEV}: this file is missing", f"/{DEV.replace('txt', 'tsv')}: this file"],
    ),
    "not in submissions": (
        renamed("submissions", "other"),
        [": no submission; one is expected: submissions/ID/dev.txt.bz2"]
        + [f"/{name.replace('submissions', 'other')}: " for name in (META, DEV, EVAL)],
    ),
    "link": (
        linked,
        [f"/{EVAL}: a link, not a plain file", f"/{EVAL}: this file is missing"],
    ),
    "two ids": (
        renamed(META, "submissions/20261122-b-metadata.json"),
        [": 2 submissions (20261122-b, 20261122-made-here); one is expected"]
        + [f"/submissions/20261122-b/{split}.txt.bz2: t" for split in ("dev", "eval")]
        + [f"/{META}: this file is missing"],
    ),
}


@pytest.mark.parametrize("case", LAYOUT)
def test_check_of_the_layout(tmp_path, make, call, given, case):
    change, expected = LAYOUT[case]
    make(tmp_path / "p")
    change(tmp_path / "p")
    status, said = call("msmarco-passage", *given, "--check", tmp_path / "p")
    assert status == 1
    for line, beginning in zip(said, expected, strict=True):
        assert line.startswith(f"{tmp_path / 'p'}{beginning}")


@pytest.mark.parametrize(
    ("id_", "message"),
    [
        ("made-here", "id 'made-here' is not `yyyymmdd-name`"),
        ("20261122", "id '20261122' is not `yyyymmdd-name`"),
        ("20261122-a b", "id '20261122-a b' is not `yyyymmdd-name`"),
        ("20261322-x", "id '20261322-x' does not begin with a date"),
    ],
)
def test_check_of_the_id(tmp_path, make, call, given, id_, message):
    folder = tmp_path / "p" / "submissions"
    make(tmp_path / "p")
    (folder / ID).rename(folder / id_)
    (tmp_path / "p" / META).rename(folder / f"{id_}-metadata.json")
    status, said = call("msmarco-passage", *given, "--check", tmp_path / "p")
    assert status == 1
    (line,) = said
    assert line.startswith(f"{folder}/{id_}-metadata.json: {message}")


def tar_of(folder: Path, path: Path) -> None:
    mode = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode) as archive:
        archive.add(folder / "submissions", "./submissions")


def zip_of(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))


@pytest.mark.parametrize("name", ["p.tar", "p.tar.gz", "p.tgz", "p.zip"])
def test_archives_are_checked_like_folders(tmp_path, make, call, given, name):
    make(tmp_path / "p")
    path = tmp_path / name
    archive_of = zip_of if name.endswith("zip") else tar_of
    archive_of(tmp_path / "p", path)
    before = sorted(tmp_path.rglob("*"))
    status, said = call("msmarco-passage", *given, "--check", path)
    assert status == 0
    assert said[0].startswith(f"{path}: {ID}: dev 480 hits")
    pack(tmp_path / "p", without(unpack(tmp_path / "p"), 26))
    archive_of(tmp_path / "p", path)
    status, said = call("msmarco-passage", *given, "--check", path)
    assert status == 1
    assert said == [f"{path}/{DEV}:26: rank 7 of topic 'q1' where 6 comes next"]
    path.write_bytes(path.read_bytes()[:700])
    status, said = call("msmarco-passage", *given, "--check", path)
    assert status == 1
    assert "cannot be read" in said[0]
    assert sorted(tmp_path.rglob("*")) == before


def member(archive, name: str, link: str | None = None) -> None:
    """Add a small file, or a link, to an open tar or zip archive."""
    if isinstance(archive, zipfile.ZipFile):
        info = zipfile.ZipInfo(name)
        info.external_attr = (0o120777 if link else 0o100644) << 16
        archive.writestr(info, link or "x")
    else:
        info = tarfile.TarInfo(name)
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        info.size = 0 if link else 1
        archive.addfile(info, io.BytesIO(b"x"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["p.tar", "p.zip"])
@pytest.mark.parametrize(
    ("added", "link", "message"),
    [
        ("../evil", None, "../evil: a path that leads out of the package"),
        ("submissions/../../evil", None, "evil: a path that leads out of the package"),
        ("/tmp/evil", None, "/tmp/evil: a path that leads out of the package"),
        ("..\\evil", None, "..\\evil: a path that leads out of the package"),
        ("submissions/x", "/etc/passwd", "submissions/x: a link"),
        (DEV, None, f"{DEV}: this name occurs twice"),
        ("extra", None, "extra: this file does not belong here"),
    ],
)
def test_archives_that_would_do_harm(
    tmp_path, make, call, given, name, added, link, message
):
    make(tmp_path / "p")
    path = tmp_path / name
    if name == "p.tar":
        tar_of(tmp_path / "p", path)
        opened = tarfile.TarFile.open(path, "a")
    else:
        zip_of(tmp_path / "p", path)
        opened = zipfile.ZipFile(path, "a")
    with opened as archive:
        member(archive, added, link)
    before = sorted(tmp_path.rglob("*"))
    status, said = call("msmarco-passage", *given, "--check", path)
    assert status == 1
    assert len(said) == 1
    assert message in said[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_zip_that_says_no_file_type_is_read(tmp_path, make, call, given):
    """As Python's writestr makes them."""
    make(tmp_path / "p")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for name in (DEV, EVAL, META):
            archive.writestr(name, (tmp_path / "p" / name).read_bytes())
    assert call("msmarco-passage", *given, "--check", tmp_path / "p.zip")[0] == 0


def test_archives_are_looked_at_only_so_far(tmp_path, make, call, given, monkeypatch):
    make(tmp_path / "p")
    tar_of(tmp_path / "p", tmp_path / "p.tar")
    monkeypatch.setattr(packages, "METADATA_SIZE", 10)
    status, said = call("msmarco-passage", *given, "--check", tmp_path / "p")
    assert status == 1
    assert said == [f"{tmp_path}/p/{META}: more than 10 bytes"]
    monkeypatch.setattr(archives, "MEMBERS", 2)
    status, said = call("msmarco-passage", *given, "--check", tmp_path / "p.tar")
    assert status == 1
    assert f"{tmp_path}/p.tar: more than 2 files; not looked at" in said


def test_what_is_no_package_is_said(tmp_path, call, given):
    with pytest.raises(DenseHNError, match="absent: package not found"):
        call("msmarco-passage", *given, "--check", tmp_path / "absent")
    with pytest.raises(DenseHNError, match="docids: neither a folder nor a .tar"):
        call("msmarco-passage", *given, "--check", tmp_path / "docids")


def test_what_the_board_only_warns_of(tmp_path, make, call, given, files, run, caplog):
    """Fewer topics than the board's, topics without a hit, fewer hits; no docids."""
    trec.write_run(files["run"], {q: run[q] for q in list(run)[:-2]}, "made")
    assert make(tmp_path / "p")[0] == 0
    caplog.clear()
    status, _ = call("msmarco-passage", *given[:-2], "--check", tmp_path / "p")
    assert status == 0
    dev = tmp_path / "p" / DEV
    for said in (
        f"{files['topics']}: 24 topics; msmarco-passage dev has 6980",
        f"{dev}: 2 of 24 topics have no hit and score 0, such as 'q22'",
        f"{dev}: 22 of 22 topics have fewer than 1000 hits",
        "neither --docids nor --corpus is given: docids are not checked",
    ):
        assert said in caplog.text


def test_docids_of_a_corpus_and_refusals(tmp_path, make, call, given, files):
    make(tmp_path / "p")
    checked = ["--check", tmp_path / "p"]
    corpus = [*given[:-2], "--corpus", files["corpus"]]
    assert call("msmarco-passage", *corpus, *checked)[0] == 0
    bad = tmp_path / "bad"
    for text, message in [
        (b"a\nb c\n", ":2: docid 'b c' is empty or has white space"),
        (b"a\n\nb\n", ":2: docid '' is empty"),
        (b"a\n\xff\n", ": not UTF-8"),
        (b"", ": no docid in this file"),
    ]:
        bad.write_bytes(text)
        with pytest.raises(DenseHNError) as error:
            call("msmarco-passage", *given[:-1], bad, *checked)
        assert str(error.value).startswith(f"{bad}{message}")


@pytest.fixture
def track(given, files):
    """Options of TREC DL 2022's passage task."""
    task = ["trec-dl", "--year", 2022, "--task", "passage"]
    return [*task, "--topics", files["topics"], *given[-2:]]


def test_made_trec_run(tmp_path, call, track, files, run):
    output = tmp_path / "handed-in"
    made = ["--run", files["run"], "--tag", "dense-hn_1", "--output", output]
    status, said = call(*track, *made)
    assert status == 0
    assert said == [f"{output}: dense-hn_1: 480 hits of 24 topics; written and checked"]
    rows = [line.split(" ") for line in output.read_text().splitlines()]
    assert {(row[1], row[5]) for row in rows} == {("Q0", "dense-hn_1")}
    scored: dict[str, dict[str, float]] = {}
    for n, (qid, _, docid, rank, score, _) in enumerate(rows):
        assert int(rank) == n % 20 + 1
        scored.setdefault(qid, {})[docid] = float(score)
    assert scored == run
    assert call(*track, "--tag", "dense-hn_1", "--check", output)[0] == 0
    packed = tmp_path / "handed-in.gz"
    packed.write_bytes(gzip.compress(output.read_bytes()))
    assert call(*track, "--check", packed)[0] == 0


@pytest.mark.parametrize(
    ("year", "task", "most"),
    [(2019, "document", 1000), (2020, "passage", 1000), (2020, "document", 100)]
    + [(2021, "passage", 100), (2022, "document", 100)],
)
def test_trec_runs_are_cut(tmp_path, call, given, files, run, year, task, most):
    """To the hits of the track's guidelines."""
    long = {f"other-{n}": float(-n) for n in range(1100)}
    trec.write_run(files["run"], run | {"q3": long}, "made")
    options = ["trec-dl", "--year", year, "--task", task, "--topics", files["topics"]]
    options += given[-2:]
    output = tmp_path / "handed-in"
    made = ["--run", files["run"], "--tag", "x", "--output", output]
    assert call(*options, *made)[0] == 0
    rows = [line.split() for line in output.read_text().splitlines()]
    kept = [row[2] for row in rows if row[0] == "q3"]
    assert kept == [f"other-{n}" for n in range(most)]
    status, said = call(*options, "--check", files["run"])
    assert status == 1
    assert said == [
        f"{files['run']}:{60 + most + 1}: topic 'q3' has more than {most} hits"
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tag", "a.b"], "--tag: tag 'a.b': only 1 to 25 letters, digits, '-' and"),
        (["--tag", "a" * 26], "only 1 to 25 letters"),
        (["--year", 2020, "--tag", "a" * 16], "only 1 to 15 letters"),
        (["--output", "out.gz"], "out.gz: the run is written unpacked"),
        (["--run", "part"], "query 'q0' has no hit in part; 1 of 24"),
    ],
)
def test_making_a_trec_run_refuses(
    tmp_path, monkeypatch, call, track, files, run, more, message
):
    monkeypatch.chdir(tmp_path)
    trec.write_run("part", {qid: run[qid] for qid in list(run)[1:]}, "made")
    made = ["--run", files["run"], "--tag", "a", "--output", "out", *more]
    with pytest.raises(DenseHNError) as error:
        call(*track, *made)
    assert message in str(error.value)
    assert not Path("out").exists()
    assert not Path("out.gz").exists()


def test_a_trec_run_replaces_nothing_else(tmp_path, call, track, files):
    made = [*track, "--run", files["run"], "--tag", "a", "--output"]
    for output, message in (
        (files["run"], "would replace what it is made from"),
        (files["topics"], "is no run, and would be replaced by one"),
        (tmp_path, "is a folder; name a file in it"),
    ):
        before = {path: path.read_bytes() for path in files.values()}
        with pytest.raises(DenseHNError, match=message):
            call(*made, output)
        assert {path: path.read_bytes() for path in files.values()} == before


def column(number: int, text: str):
    def change(line: str) -> str:
        columns = line.split(" ")
        columns[number] = text
        return " ".join(columns)

    return change


# Every topic has 20 lines, scores 20.0 to 1.0.
TREC_DL = {
    "unknown topic": (
        lambda x: [*x, "q99 Q0 red-lamp 1 1.0 made"],
        ":481: topic 'q99' is not among the topics",
    ),
    "unknown docid": (
        lambda x: with_line(x, 40, column(2, "none")),
        ":40: docid 'none' is not in the corpus",
    ),
    "duplicate docid": (
        lambda x: with_line(x, 480, column(2, x[460].split()[2])),
        ":480: ",
    ),
    "rank gap": (
        lambda x: without(x, 45),
        ":45: rank 6 of topic 'q2' where 5 comes next",
    ),
    "rising score": (
        lambda x: with_line(x, 25, column(4, "17.5")),
        ":25: score 17.5 is above the one before it, 17.0",
    ),
    "score no number": (
        lambda x: with_line(x, 25, column(4, "high")),
        ":25: score 'high' is not a finite number",
    ),
    "score nan": (
        lambda x: with_line(x, 25, column(4, "nan")),
        ":25: score 'nan' is not a finite number",
    ),
    "five columns": (
        lambda x: with_line(x, 25, lambda a: a.rpartition(" ")[0]),
        ":25: expected 6 columns `qid Q0 docid rank score tag`, got",
    ),
    "not Q0": (
        lambda x: with_line(x, 25, column(1, "0")),
        ":25: second column '0', not 'Q0'",
    ),
    "several tags": (
        lambda x: with_line(x, 25, column(5, "other")),
        ":25: tag 'other' where 'made' is expected",
    ),
    "wrong tag": (
        lambda x: [line.replace("made", "made.here") for line in x],
        ":1: tag 'made.here': only 1 to 25 letters",
    ),
    "topic not together": (
        lambda x: [*x[:7], *x[20:40], *x[7:20], *x[40:]],
        ":28: topic 'q0' again, after other topics; it began on line 1",
    ),
    "topic without hit": (lambda x: x[20:], ": no hit for 'q0'"),
    "not UTF-8": (
        lambda x: with_line(x, 25, column(2, "\udcff")),
        ":25: not UTF-8",
    ),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", TREC_DL)
def test_check_of_a_trec_run_names_the_line(call, track, files, case, packed):
    change, message = TREC_DL[case]
    lines = change(files["run"].read_text().splitlines())
    content = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    path = Path(f"{files['run']}.gz") if packed else files["run"]
    path.write_bytes(gzip.compress(content) if packed else content)
    status, said = call(*track, "--check", path)
    assert status == 1
    assert len(said) == 1
    assert said[0].startswith(f"{path}{message}")


def test_check_of_other_broken_trec_runs(tmp_path, call, track, files):
    path = tmp_path / "cut.gz"
    packed = gzip.compress(files["run"].read_bytes())
    path.write_bytes(packed[:-8])
    status, said = call(*track, "--check", path)
    assert status == 1
    assert said[0].startswith(f"{path}:481: cannot be read from here on")
    path.write_bytes(gzip.compress(b""))
    assert call(*track, "--check", path) == (1, [f"{path}: an empty file"])
    status, said = call(*track, "--tag", "other", "--check", files["run"])
    assert status == 1
    assert said[0] == f"{files['run']}:1: tag 'made' where 'other' is expected"
    assert said[-1] == "… and 470 more: wrong tag"


def test_equal_scores_are_taken(call, track, files):
    """TREC asks for non-increasing scores."""
    lines = files["run"].read_text().splitlines()
    lines[1] = column(4, lines[0].split()[4])(lines[1])
    files["run"].write_text("".join(f"{line}\n" for line in lines))
    assert call(*track, "--check", files["run"])[0] == 0
