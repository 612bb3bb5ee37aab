"""README's step-by-step commands, as written, on a collection made in the test; and the
table of the reference runs.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from replay import run_here

from dense_hn import trec
from dense_hn.collections import collection, sources
from dense_hn.collections.collection import Collection
from dense_hn.train import recipe

README = Path(__file__).parents[2] / "README.md"


def step_by_step() -> list[list[str]]:
    """The words of every command in the block after "Or step by step"."""
    block = README.read_text().partition("Or step by step")[2].split("```")[1]
    return [shlex.split(line) for line in block.strip().splitlines()]


@pytest.mark.usefixtures("pyserini_here")
def test_step_by_step(corpus, topics, qrels, roberta, tmp_path, monkeypatch, capsys):
    qids = list(topics)
    splits = {"train": qids[:16], "test": qids[16:]}
    topics, qrels = (
        {split: {q: of[q] for q in part} for split, part in splits.items()}
        for of in (topics, qrels)
    )
    made = Collection(corpus=corpus, topics=topics, qrels=qrels)
    collection.write(made, tmp_path / "made")
    (tmp_path / "made/corpus/corpus.jsonl").rename(tmp_path / "corpus.jsonl")
    for split in splits:
        (tmp_path / f"made/topics.{split}.tsv").rename(tmp_path / f"{split}.tsv")
        (tmp_path / f"made/qrels.{split}.txt").rename(tmp_path / f"{split}.qrels")
    monkeypatch.chdir(tmp_path)
    commands = step_by_step()
    assert len(commands) == 11
    for python, m, module, *arguments in commands:
        assert (python, m) == ("python", "-m")
        if "roberta-base" in arguments:
            arguments[arguments.index("roberta-base")] = str(roberta)
            arguments += ["--passage_length", "32"]
        if "--vectors" in arguments and module == "dense_hn.train":
            arguments += ["--adore_hits", "20"]
        if module == "dense_hn.train":
            arguments += ["--max_steps", "2", "--use_cpu", "true"]
        run_here(module, arguments)
    printed = capsys.readouterr().out
    assert "bm25.test   " in printed
    assert "8 topics" in printed
    assert (
        "python -m dense_hn.pyserini search.faiss --encoder-class ance "
        "--encoder ance/adore --index indexes/star" in printed
    )
    assert len(trec.read_run("runs/adore.test.txt")) == 8


def test_a_collection_of_ones_own_files(files, tmp_path, monkeypatch):
    """README's `collection:` block, with the made collection in files of its names."""
    block = README.read_text().partition("## Your own collection")[2].split("```")[1]
    monkeypatch.chdir(tmp_path)
    for name in ("train", "test"):
        Path(f"{name}.tsv").write_text(files["topics"].read_text())
        Path(f"{name}.qrels").write_text(files["qrels"].read_text())
    # Topics of test are no topics of train.
    train = Path("train.tsv").read_text().replace("where is", "find")
    Path("train.tsv").write_text(train)
    Path("mine.yaml").write_text(block)
    section = recipe.read("mine.yaml").collection
    sources.build(section.kind, section.value, "c")
    sizes = {p.name: len(p.read_text().splitlines()) for p in Path("c").glob("*.tsv")}
    assert sizes == {"topics.train.tsv": 22, "topics.dev.tsv": 2, "topics.test.tsv": 24}


def test_the_reference_runs_give_the_printed_table():
    """The block with the command, and the one below it, of this folder's README."""
    blocks = (Path(__file__).parent / "README.md").read_text().split("```")[1::2]
    number = next(n for n, text in enumerate(blocks) if "runs/reference" in text)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }
    done = subprocess.run(
        ["bash", "-c", blocks[number]],
        check=True,
        capture_output=True,
        text=True,
        cwd=README.parent,
        env=environment,
    )
    assert done.stdout == blocks[number + 1].removeprefix("\n")
