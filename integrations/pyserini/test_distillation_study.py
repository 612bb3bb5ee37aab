"""The study of distillation at a small size, its table against the recipes' own."""

import json
import sys

import distillation
import holm_by_hand
import numpy as np
import pytest
from scipy.stats import ttest_rel

from dense_hn import DenseHNError, trec

SMALL = """
encoder: {{source: {bert}}}
star: &star
  negatives: [base]
  from: base
  max_steps: 2
  learning_rate: 1e-3
  use_cpu: true
star-kl:
  <<: *star
  method: star
  teacher: [collection:teacher]
  distil: kl
adore: &adore {{from: base, max_steps: 2, learning_rate: 1e-3, use_cpu: true}}
adore-mixed:
  <<: *adore
  method: adore
  teacher: [collection:teacher]
  distil: margin-mse
  distil_weight: 0.5
evaluate: {{hits: 20, measures: [nDCG@10]}}
"""


@pytest.fixture
def study(files, split_folder, bert, tmp_path, monkeypatch):
    """Calls the script, with a small recipe."""
    recipe = tmp_path / "distillation.yaml"
    recipe.write_text(SMALL.format(bert=bert))
    monkeypatch.setattr(distillation, "RECIPE", recipe)

    def call(*more):
        words = ["--collection", split_folder, "--teacher", files["run"]]
        words += ["--output", tmp_path / "out", *more]
        monkeypatch.setattr(sys, "argv", ["distillation.py", *map(str, words)])
        distillation.main()
        return tmp_path / "out"

    return call


@pytest.mark.usefixtures("pyserini_here")
def test_the_table_is_of_what_the_recipes_found(study, capsys):
    out = study("--numbers", "8", "4")
    text = (out / "table.md").read_text()
    assert capsys.readouterr().out.endswith(text)
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    numbers, chosen = (4, 8, 12), []
    means, p = {}, {}
    for number in numbers:
        folder = out / str(number)
        chosen.append({*trec.read_topics(folder / "collection" / "topics.train.tsv")})
        runs = folder / "runs" / "distillation"
        rows = json.loads((runs / "table.test.json").read_text())["rows"]
        means[number] = {row["name"]: row["cells"]["nDCG@10"]["mean"] for row in rows}
        found = {path.name.partition(".")[0]: path for path in runs.glob("*.test.txt")}
        qrels = trec.read_qrels(folder / "collection" / "qrels.test.txt")

        def values(system, found=found, qrels=qrels):
            run, gains = trec.read_run(found[system]), []
            for qid in qrels:
                # Of one relevant document each.
                (docid,) = qrels[qid]
                first = trec.ranked(run[qid])[:10]
                rank = first.index(docid) + 1 if docid in first else np.inf
                gains.append(1 / np.log2(1 + rank))
            return np.array(gains)

        for taught, plain in (("star-kl", "star"), ("adore-mixed", "adore")):
            p[number, taught] = ttest_rel(values(taught), values(plain)).pvalue
    assert [*map(len, chosen)] == [*numbers] and chosen[0] < chosen[1] < chosen[2]
    rows = {
        cells[0]: cells[1:]
        for line in text.splitlines()[2:]
        if line.startswith("|")
        for cells in [line.strip("| ").split(" | ")]
    }
    assert rows.keys() == {"untrained", "star", "star-kl", "adore", "adore-mixed"}
    said = holm_by_hand.cells(p)
    for place, number in enumerate(numbers):
        for system, cells in rows.items():
            assert cells[place].startswith(f"{means[number][system]:.4f}")
            if (number, system) not in p:
                assert "(" not in cells[place]
                continue
            more = means[number][system] - means[number][system.partition("-")[0]]
            assert cells[place].endswith(f" ({more:+.4f}, {said[number, system]})")

    before = {p: p.stat().st_mtime_ns for p in out.glob("*/work/*/models/*")}
    study("--numbers", "4", "8")
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/work/*/models/*")} == before
    assert (out / "table.md").read_text() == text


def test_a_collection_without_test_topics(study, split_folder, tmp_path):
    (split_folder / "qrels.test.txt").unlink()
    with pytest.raises(DenseHNError, match="no judged topics of test"):
        study()
    assert not (tmp_path / "out").exists()


def test_more_topics_than_there_are(study, tmp_path):
    with pytest.raises(DenseHNError, match="--numbers: from 1 to 12"):
        study("--numbers", "13")
    assert not (tmp_path / "out").exists()
