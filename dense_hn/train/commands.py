"""The training stages by name."""

from typing import Any

from dense_hn.train import adore, arguments, star, warmup
from dense_hn.train.trainer import DenseTrainingArguments

STAGES = {"warmup": warmup, "star": star, "adore": adore}


def parse(stage: str, argv: list[str]) -> tuple[Any, DenseTrainingArguments]:
    """Parse what follows `python -m dense_hn.train STAGE`.

    Raises:
        DenseHNError: unknown or missing arguments, values out of range.
    """
    return arguments.parse(
        f"dense_hn.train {stage}",
        [STAGES[stage].Arguments, DenseTrainingArguments],
        argv,
        usage="%(prog)s --FLAG VALUE …",
        description=STAGES[stage].__doc__.splitlines()[0],
    )


def train(stage: str, argv: list[str]) -> None:
    """Run one training stage."""
    STAGES[stage].train(*parse(stage, argv))
