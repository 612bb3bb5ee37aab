"""Every script of benchmarks/ at a small size, against the tables of its page."""

import dataclasses
import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = {
    "search": ["--passages", "3000", "--dimension", "16", "--repeats", "1"],
    "star_step": ["--queries", "2", "--repeats", "1"],
    "encode": ["--passages", "8", "--repeats", "1"],
    "adore": ["--passages", "300", "--queries", "2", "--steps", "2"],
    "quantised": ["--passages", "600", "--bytes", "8", "--repeats", "1"],
    "diagnose": ["--passages", "300", "--topics", "20"],
}


def table(text: str) -> list[list[str]]:
    """The rows of the first table, numbers as N where they name a size."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def section(script: str) -> str:
    """What the page says that a script printed."""
    page = (ROOT / "benchmarks/README.md").read_text()
    found = re.search(
        rf"```\npython benchmarks/{script}\.py\n```\n(.*?)(?=\n## |\Z)", page, re.DOTALL
    )
    return found[1]


def require_like_the_page(script: str, printed: str) -> None:
    """The same columns and rows, and numbers where there are any on the page."""
    ours, theirs = table(printed), table(section(script))
    assert ours[0] == theirs[0]
    named = [
        [re.sub(r"[\d,]+", "N", row[0]) for row in rows[2:]] for rows in (ours, theirs)
    ]
    # Sizes are rows, too, and there may be fewer of them here.
    assert list(dict.fromkeys(named[0])) == list(dict.fromkeys(named[1]))
    for row in ours[2:]:
        assert all(re.fullmatch(r"-?[\d,]+(\.\d+)?", cell) for cell in row[1:])


@pytest.mark.parametrize("script", SMALL)
def test_a_script_prints_the_tables_of_the_page(script, monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("DENSE_HN_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *SMALL[script]])
    try:
        runpy.run_path(str(ROOT / f"benchmarks/{script}.py"), run_name="__main__")
    finally:
        # They have the names of modules that other tests may know.
        for name in ("side_by_side", "workload"):
            sys.modules.pop(name, None)
    require_like_the_page(script, capsys.readouterr().out)


def test_growth_prints_the_tables_of_its_page(monkeypatch, capsys, tmp_path):
    """From the rates that stand there, too."""
    page = (ROOT / "integrations/pyserini/growth.md").read_text()
    rates = tmp_path / "rates.txt"
    rates.write_text(re.search(r"```\n(2 threads.*?)```", page, re.DOTALL)[1])
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["growth.py", str(rates)])
    try:
        runpy.run_path(str(ROOT / "benchmarks/growth.py"), run_name="__main__")
    finally:
        sys.modules.pop("side_by_side", None)
    assert capsys.readouterr().out.strip() in page


def test_times_by_hand(monkeypatch):
    """Two devices, 1,000 passages, ten topics."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    growth = importlib.import_module("growth")
    job = growth.Job(
        passages=1000, dimension=4, parameters=100, topics=10, hits=5, star_steps=3
    )
    job = dataclasses.replace(job, star_batch=8, adore_batch=2, epochs=2)
    rates = growth.Rates(
        encoded=50, star_query=0.5, adore_query=0.25, scored=1e-4, indexed=100
    )
    assert growth.times(job, rates, 2) == {
        "BM25 index (one machine)": 10,
        "encode the passages": 10,
        "mine the training topics": pytest.approx(0.5),
        "STAR": 6,
        # Twenty queries of a quarter second, and of a tenth for their search.
        "ADORE": pytest.approx(3.5),
    }
    # One query's vector comes from the other device, and its ten hits of either; half of what
    # goes round the ring twice: 2 × (5 + 1) vectors, and the gradients.
    step = growth.adore_step(job, 2)
    assert growth.received(step, 2) == 16 + 2 * 5 * 16 + 2 * 6 * 16 + 400
    sys.modules.pop("side_by_side", None)
    sys.modules.pop("growth", None)
