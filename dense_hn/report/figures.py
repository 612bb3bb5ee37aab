"""The page's figures, drawn by plotly: what trainings logged, and where the time went."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dense_hn import DenseHNError
from dense_hn.train import curves

# Of Okabe and Ito, which colour-blind eyes tell apart on light and on dark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
# What a training logs that says nothing of how well it goes: settings, times and sums.
APART = ("seconds/", "train_", "eval_runtime", "eval_samples", "eval_steps")
UNDRAWN = ("step", "epoch", "learning_rate", "total_flos")


def require() -> None:
    """Raise a DenseHNError where plotly is not there."""
    if importlib.util.find_spec("plotly") is None:
        raise DenseHNError("a report needs plotly: pip install plotly")


def trainings(logs: Mapping[str, Path]) -> dict[str, str]:
    """A figure for each quantity that was logged while training: its name to its JSON.

    Args:
        logs: name of a training to its log.
    """
    import plotly.graph_objects as go

    logged = {name: curves.read(log, "") for name, log in logs.items()}
    quantities = dict.fromkeys(
        quantity
        for curve in logged.values()
        for quantity in curve
        if not quantity.startswith(APART) and quantity not in UNDRAWN
    )
    found = {}
    for quantity in quantities:
        figure = _figure("step")
        for place, (name, curve) in enumerate(logged.items()):
            steps = sorted(curve.get(quantity, {}))
            if steps:
                trace = go.Scatter(
                    x=steps,
                    y=[curve[quantity][step] for step in steps],
                    name=name,
                    mode="lines+markers",
                    line={"color": COLOURS[place % len(COLOURS)]},
                )
                figure.add_trace(trace)
        found[quantity] = figure.to_json()
    return found


def costs(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """Seconds of each stage, by what it did in them, as JSON.

    Args:
        stages: name to what costs.Costs.facts told.
    """
    import plotly.graph_objects as go

    figure = _figure("seconds")
    parts = dict.fromkeys(part for facts in stages.values() for part in facts["shares"])
    for place, part in enumerate(parts):
        seconds = [
            facts["seconds"] * facts["shares"].get(part, 0) for facts in stages.values()
        ]
        bar = go.Bar(
            x=[round(one, 2) for one in seconds],
            y=list(stages),
            name=part,
            orientation="h",
            marker={"color": COLOURS[place % len(COLOURS)]},
        )
        figure.add_trace(bar)
    # The first stage on top.
    figure.update_layout(barmode="stack", height=120 + 22 * len(stages))
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure.to_json()


def _figure(x: str) -> Any:
    import plotly.graph_objects as go

    # The page gives the colours of its theme.
    return go.Figure(
        layout={
            "template": None,
            "height": 280,
            "margin": {"l": 50, "r": 10, "t": 10, "b": 40},
            "xaxis": {"title": {"text": x}},
            "legend": {"orientation": "h", "y": -0.25},
            "showlegend": True,
        }
    )
