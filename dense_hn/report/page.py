"""The page itself: everything it shows, put into one file."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from dense_hn import __version__
from dense_hn.evaluate.table import chance
from dense_hn.files import require_file, require_folder
from dense_hn.report import figures
from dense_hn.report.comparison import Comparison
from dense_hn.train.places import Places
from dense_hn.train.trainer import log_of

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a folder of dense_hn.diagnose shows."""

    name: str
    table: str
    # Data addresses of its figures.
    images: dict[str, str]


def diagnosis(folder: Path) -> Diagnosis:
    """Read a folder that dense_hn.diagnose wrote.

    Raises:
        DenseHNError: it is none.
    """
    require_folder(folder, "a diagnosis")
    table = require_file(folder / "table.txt", "a diagnosis's table")
    images = {
        path.stem: "data:image/svg+xml;base64,"
        + base64.b64encode(path.read_bytes()).decode()
        for path in sorted(folder.glob("*.svg"))
    }
    text = table.read_text(encoding="utf-8").rstrip()
    return Diagnosis(name=folder.name, table=text, images=images)


def render(
    places: Places, comparison: Comparison, diagnoses: Sequence[Diagnosis]
) -> str:
    """The page of a recipe that ran, as HTML that refers to nothing outside it."""
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["chance"] = chance
    stages = {
        name: facts
        for name, facts in json.loads(places.costs.read_text(encoding="utf-8")).items()
        if places.has_stage(name)
    }
    logs = {
        stage.name: log_of(places.model(stage.name)) for stage in places.recipe.stages
    }
    drawn = figures.trainings({name: log for name, log in logs.items() if log.exists()})
    table = json.loads(places.table.with_suffix(".json").read_text(encoding="utf-8"))
    return environment.get_template("page.html.jinja").render(
        version=__version__,
        name=places.recipe.name,
        split=places.split,
        table=table,
        measures=list(table["rows"][0]["cells"]),
        comparison=comparison,
        trainings=drawn,
        stages=stages,
        costs=figures.costs(stages),
        diagnoses=diagnoses,
        recipe=places.ran.read_text(encoding="utf-8"),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
    )
