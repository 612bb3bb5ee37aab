"""benchmarks/rates.py at a tiny size, against the rows that msmarco-passage.md prints."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from dense_hn.collections import pydoc
from dense_hn.collections.collection import Collection

ROOT = Path(__file__).parents[2]


def test_the_rows_of_the_page(corpus, bert, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("rates", ROOT / "benchmarks/rates.py")
    rates = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rates)
    made = Collection(corpus=corpus, topics={}, qrels={})
    monkeypatch.setattr(pydoc, "read", lambda: made)
    argv = ["rates.py", "--encoder", str(bert), "--passages", "4", "--steps", "1"]
    argv += ["--query_length", "8", "--passage_length", "16", "--batch", "2"]
    monkeypatch.setattr(
        sys, "argv", [*argv, "--queries", "2", "--vectors", "210", "220"]
    )
    rates.main()

    def rows(text: str) -> list[tuple[str, float]]:
        """What was measured, whatever the sizes, and the values."""
        found = re.findall(r"^(\S.*?)  +([\d,]+\.\d+)$", text, re.MULTILINE)
        return [
            (re.sub(r"[\d,]+", "N", w), float(v.replace(",", ""))) for w, v in found
        ]

    page = (ROOT / "integrations/pyserini/msmarco-passage.md").read_text()
    ours, theirs = rows(capsys.readouterr().out), rows(page)
    assert [what for what, _ in ours] == [what for what, _ in theirs]
    assert min(value for _, value in ours) > 0
    # What a hit takes does not depend on the machine, or much on how many there are.
    assert ours[-1][1] == pytest.approx(theirs[-1][1], rel=0.3)
