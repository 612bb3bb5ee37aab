"""Model cards: what they say is what was run, and the hub's own reader reads them."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from dense_hn.train import card as card_module
from dense_hn.train import recipe
from dense_hn.train.pipeline import Pipeline

RECIPE = """
collection: {{folder: {folder}}}
encoder: {{source: {encoder}, query_length: 8, passage_length: 16}}
evaluate: {{topics: test, hits: 20, measures: [nDCG@10, RR@10]}}
star: {{negatives: [bm25, {run}], max_steps: 1, per_device_train_batch_size: 2, use_cpu: true}}
adore: {{max_steps: 1, per_device_train_batch_size: 2, adore_hits: 5, use_cpu: true}}
"""


@pytest.mark.usefixtures("pyserini_here")
@pytest.mark.parametrize(
    "base_says", ["---\nlicense: mit\n---\nA base.\n", "---\n[\n---\n"]
)
def test_a_card_says_what_was_run(split_folder, files, bert, tmp_path, base_says):
    base = tmp_path / "base-encoder"
    shutil.copytree(bert, base)
    (base / "README.md").write_text(base_says)
    licensed = "mit" in base_says
    run = tmp_path / "some.run"
    shutil.copy(files["run"], run)
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE.format(folder=split_folder, encoder=base, run=run))
    pipeline = Pipeline(recipe.read(str(path)), tmp_path / "out")
    pipeline.run()

    card = ModelCard.load(pipeline.model("adore") / "README.md")
    assert card.data.license == ("mit" if licensed else None)
    rows = json.loads(pipeline.table.with_suffix(".json").read_text())["rows"]
    (row,) = [row for row in rows if row["name"] == "adore"]
    told = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert told == {
        measure: round(cell["mean"], 4) for measure, cell in row["cells"].items()
    }
    assert pipeline.table.read_text().strip() in card.text
    # The command is the report's, as typed in the output folder.
    (line,) = [line for line in card.text.splitlines() if "search.faiss" in line]
    report = pipeline.report().replace(f"{tmp_path}/out/", "")
    assert line in report.replace(f"{split_folder}/", "")
    # The query side alone was trained; nothing of this machine is told.
    assert "encoded by the stage `star`" in card.text
    assert "| adore | adore | star | max_steps: 1" in card.text
    assert str(tmp_path) not in card.text
    assert "# small-adore\n" in card.text
    assert "negatives: bm25, some.run" in card.text
    assert "with hard negatives: STAR and ADORE of [Optimizing" in card.text
    assert f"Licence of the base: {'mit' if licensed else 'not stated'}" in card.text

    # The base's own card is for people: nothing is made anew for another one.
    key = pipeline.ledger.stages["base"].key
    (base / "README.md").write_text("Now with scores.\n")
    again = Pipeline(recipe.read(str(path)), tmp_path / "out")
    assert again.ledger.stages["base"].key == key


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("warmup", {"negatives": []}, ""),
        ("star", {"negatives": []}, ""),
        ("star", {}, "STAR"),
        ("adore", {}, "ADORE"),
        ("dynamic", {"negatives": ["bm25"]}, ""),
    ],
)
def test_a_card_names_the_papers_methods_where_they_are(method, settings, said):
    stage = recipe.TrainingSection(
        name="x", method=method, source="base", settings=settings
    )
    assert card_module._of_the_paper([stage]) == said
