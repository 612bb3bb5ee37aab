"""Model cards, in Hugging Face's form: what a published model's reader has to know."""

import json
from pathlib import Path
from typing import Any

import yaml
from transformers.utils import cached_file

from dense_hn import __version__, trec
from dense_hn.collections.corpus import read_corpus
from dense_hn.encoder_settings import CARD, EncoderSettings
from dense_hn.files import whole_file
from dense_hn.pretrained import locate
from dense_hn.train.places import Places
from dense_hn.train.recipe import TrainingSection

TEMPLATE = Path(__file__).with_name("card.md.jinja")


def write(places: Places, name: str, command: str) -> None:
    """Write the card of a training stage into its folder, when all is scored.

    Args:
        places: of the recipe.
        name: of the stage.
        command: line that searches with it in Pyserini, as typed in the output folder.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    source = places.recipe.encoder["source"]
    settings = EncoderSettings.of(EncoderSettings.saved(str(places.model(name))))
    collection = _said(places.recipe.collection.value)
    licence = _licence(source)
    scored = json.loads(places.table.with_suffix(".json").read_text(encoding="utf-8"))
    (row,) = [row for row in scored["rows"] if row["name"] == name]
    data = ModelCardData(
        license=licence,
        base_model=None if Path(locate(source)).is_dir() else source,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["dense-retrieval", "hard-negatives", "pyserini", "dense_hn"],
        model_name=f"{places.recipe.name}-{name}",
        eval_results=[
            EvalResult(
                task_type="information-retrieval",
                dataset_type=places.recipe.collection.kind,
                dataset_name=collection,
                dataset_split=places.split,
                metric_type=measure,
                metric_value=round(cell["mean"], 4),
            )
            for measure, cell in row["cells"].items()
        ],
    )
    space = places.passages(name)
    stages = _up_to(places.recipe.stages, name)
    trained = trec.read_judged(places.topics("train"), places.judged("train"))[0]
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=data.model_name,
        name=name,
        space=space,
        coded=places.coded(space),
        source=_said(source),
        licence=licence,
        settings=settings,
        kind=places.recipe.collection.kind,
        collection=collection,
        passages=len(read_corpus(places.corpus)),
        max_passage=places.max_passage,
        trained=len(trained),
        topics=scored["topics"],
        split=places.split,
        stages=[_told(stage) for stage in stages],
        methods=_of_the_paper(stages),
        table=places.table.read_text(encoding="utf-8").rstrip(),
        command=command,
        version=__version__,
    )
    with whole_file(places.model(name) / CARD) as part:
        part.write_text(f"{str(card).rstrip()}\n", encoding="utf-8")


def _up_to(stages: list[TrainingSection], name: str) -> list[TrainingSection]:
    """A stage, and before it those that it starts from."""
    by_name = {stage.name: stage for stage in stages}
    chain: list[TrainingSection] = []
    while name in by_name:
        chain.insert(0, by_name[name])
        name = by_name[name].source
    return chain


def _of_the_paper(stages: list[TrainingSection]) -> str:
    """Which of the paper's two methods they are, if any of them is."""
    found = {
        stage.method
        for stage in stages
        # STAR without runs has random negatives alone.
        if stage.method == "adore" or stage.settings.get("negatives", True)
    }
    return " and ".join(one.upper() for one in ("star", "adore") if one in found)


def _told(stage: TrainingSection) -> dict[str, str]:
    """A row of the card's table."""
    settings = (f"{key}: {_said(value)}" for key, value in stage.settings.items())
    return {
        "name": stage.name,
        "method": stage.method,
        "source": stage.source,
        "settings": ", ".join(settings),
    }


def _said(source: Any) -> str:
    """A source without the folders of this machine."""
    if isinstance(source, str):
        return Path(source).name if Path(source).exists() else source
    if isinstance(source, dict):
        return ", ".join(f"{key} {_said(value)}" for key, value in source.items())
    return ", ".join(map(_said, source)) if isinstance(source, list) else str(source)


def _licence(source: str) -> str | None:
    """What the base's own card says, if it has one that says it."""
    from huggingface_hub import metadata_load

    path = cached_file(
        locate(source),
        CARD,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    try:
        found = metadata_load(path) if path else None
    # Somebody else's file, that need not be right.
    except (ValueError, yaml.YAMLError):
        found = None
    licence = (found or {}).get("license")
    return str(licence) if licence else None
