"""The pages of MS MARCO and BEIR, replayed word for word on a few dozen documents.

Their data cannot be had in a test. ir_datasets serves the made collection in its place,
from files with the originals' names and formats; sizes and depths are reduced, and no
download gets anywhere.
"""

import json
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from compare_runs import compare
from replay import run_here

from dense_hn import trec
from dense_hn.encode import encode_texts
from dense_hn.encoder import DenseEncoder

PAGES = Path(__file__).parent

STEPS = {"max_steps": 2, "warmup_steps": 1, "use_cpu": "true"}
STEPS |= {"per_device_train_batch_size": 4}
JOINT = STEPS | {"fp16": "no", "negatives_depth": 10, "passage_length": 32}
SMALL = {
    "warmup": JOINT,
    "star": JOINT,
    "adore": STEPS | {"adore_hits": 20, "metric_cut": 20},
    "encoder": {"passage_length": 32},
    "evaluate": {"hits": 30},
}


def changes(stages: list[str], **more: str) -> list[str]:
    """``--set`` and what makes these sections small."""
    small = [f"{s}.{key}={value}" for s in stages for key, value in SMALL[s].items()]
    return ["--set", *small, *(f"{key}={value}" for key, value in more.items())]


def commands(page: str) -> list[str]:
    """The commands in a page's blocks."""
    blocks = (PAGES / page).read_text().split("```")[1::2]
    lines = [line for block in blocks for line in block.strip().splitlines()]
    return [line for line in lines if line.startswith("python -m ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, ir_home, ir_datasets_in, pyserini_here):
    """Where the commands are run, with that ir_datasets and no network."""
    home = tmp_path_factory.mktemp("recipes")
    with ir_datasets_in(ir_home), pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("PYTHONPATH", str(PAGES.parents[1]))
        yield home


def follow(page: str, small: list[str]) -> None:
    """Run a page's commands, all but the one whose output goes into a file in this process."""
    for line in commands(page):
        module = line.split()[2]
        if module == "ir_datasets":
            line = shlex.quote(sys.executable) + line.removeprefix("python")
            subprocess.run(line, shell=True, check=True, capture_output=True)
            continue
        arguments = shlex.split(line)[3:]
        if module == "dense_hn.train":
            arguments += small
        run_here(module, arguments)


@pytest.fixture(scope="module")
def passages(folder, roberta):
    """The folder after the passages' page."""
    more = {"encoder.source": str(roberta)}
    stages = ["encoder", "warmup", "star", "adore", "evaluate"]
    follow("msmarco-passage.md", changes(stages, **more))
    return folder


def table(name: str, split: str) -> tuple[int, list[str]]:
    """How many topics a table is over, and its systems."""
    said = json.loads(Path(f"runs/{name}/table.{split}.json").read_text())
    return said["topics"], [row["name"] for row in said["rows"]]


def test_the_passages_page(passages, corpus, topics, qrels):
    systems = ["BM25", "warmup", "star", "adore"]
    for split, judged in (("dev", 6), ("dl19", 4), ("dl20", 4)):
        assert table("msmarco-passage", split) == (judged, systems)
    # STAR's negatives are the warm-up's own hits, as many as it looks at, and the
    # relevant documents.
    mined = trec.read_run("runs/msmarco-passage/warmup.train.txt")
    assert len(mined) == 12
    assert all(10 <= len(hits) <= 12 for hits in mined.values())

    # An independent search: the run of the dl19 topics by float64 dot products.
    work = Path("work/msmarco-passage")
    run = trec.read_run("runs/msmarco-passage/adore.dl19.txt")
    queries = DenseEncoder.load(str(work / "ance" / "adore"))
    documents = DenseEncoder.load(str(work / "ance" / "star"))
    matrix = encode_texts(documents, [t.strip() for t in corpus.values()], "passage")
    for n, text in list(enumerate(topics.values()))[18:22]:
        query = encode_texts(queries, [text], "query").double()[0]
        scores = (matrix.double() @ query).tolist()
        best = sorted(scores, reverse=True)[:30]
        hits = run[str(1000 + n)]
        assert sorted(hits.values(), reverse=True) == pytest.approx(
            best, rel=1e-6, abs=1e-4
        )
        for docid, score in hits.items():
            assert score == pytest.approx(scores[int(docid) // 7], rel=1e-6, abs=1e-4)


def test_another_split_only_adds_its_searches_and_its_table(passages):
    work, runs = Path("work/msmarco-passage"), Path("runs/msmarco-passage")
    first = (runs / "table.dev.json").stat().st_mtime_ns
    later = {p for p in work.rglob("*") if p.is_file() and p.stat().st_mtime_ns > first}
    # Cards have the scores of the last split, and the recipe says which that is.
    cards = {work / "ance" / name / "README.md" for name in ("star", "adore")}
    assert later == {work / "stages.json", work / "msmarco-passage.yaml", *cards}
    later = {p.name for p in runs.iterdir() if p.stat().st_mtime_ns > first}
    systems = ["bm25", "warmup", "star", "adore"]
    for split in ("dl19", "dl20"):
        assert {f"{system}.{split}.txt" for system in systems} < later
        assert f"table.{split}.txt" in later
    assert not any(f"{system}.dev.txt" in later for system in systems)
    assert not any(name.endswith(".train.txt") for name in later)


def test_pyserini_finds_what_the_recipe_found(passages):
    runs = Path("runs/msmarco-passage")
    ours = trec.read_run(runs / "adore.dev.txt")
    theirs = trec.read_run(runs / "pyserini-adore.dev.txt")
    # Pyserini was asked for 1000 and gives all 48; the recipe, here, 30.
    assert compare(ours, theirs, depth=30)["docids_in_one"] == 0
    for qid, hits in ours.items():
        assert hits == pytest.approx(
            {d: theirs[qid][d] for d in hits}, rel=1e-6, abs=1e-4
        )


def test_runs_to_submit(passages):
    for name, topics in (("eval", 2), ("dl19-all", 6)):
        run = trec.read_run(f"runs/msmarco-passage/adore.{name}.txt")
        assert len(run) == topics
        assert {len(hits) for hits in run.values()} == {48}


def test_the_documents_page(passages):
    """It starts from the passages' STAR."""
    follow("msmarco-document.md", changes(["encoder", "star", "adore", "evaluate"]))
    systems = ["BM25", "untrained", "star", "adore"]
    for split, judged in (("dev", 6), ("dl19", 4), ("dl20", 4)):
        assert table("msmarco-document", split) == (judged, systems)
    work = Path("work")
    weights = [
        (work / name / "model.safetensors").read_bytes()
        for name in ("msmarco-passage/ance/star", "msmarco-document/ance/base")
    ]
    assert weights[0] == weights[1]
    run = trec.read_run("runs/msmarco-document/pyserini-adore.dev.txt")
    assert all(re.fullmatch(r"D\d+", docid) for docid in run["1012"])


def test_the_beir_page_by_id_and_from_a_folder(folder, ir_home, bert):
    """Both are the same collection, and end with the same runs."""
    with zipfile.ZipFile(ir_home / "beir" / "scifact" / "source.zip") as archive:
        archive.extractall("path/to")
    small = ["encoder", "star", "adore", "evaluate"]
    follow("beir.md", changes(small, **{"encoder.source": str(bert)}))
    for system in ("bm25", "base", "star", "adore"):
        one, two = (
            Path(name, "runs", "beir", f"{system}.test.txt").read_text()
            for name in ("beir/scifact", "beir/folder")
        )
        assert one == two
    assert len(trec.read_run("beir/scifact/runs/beir/adore.test.txt")) == 6
