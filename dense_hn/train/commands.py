"""The training stages by name."""

from typing import Any

from dense_hn.train import adore, arguments, dynamic, star, warmup
from dense_hn.train.trainer import DenseTrainingArguments

STAGES = {"warmup": warmup, "star": star, "adore": adore, "dynamic": dynamic}


def one_sided(stage: str) -> bool:
    """Whether it trains the query side alone, against passage vectors that stay."""
    return stage == "adore"


def parse(stage: str, argv: list[str]) -> tuple[Any, DenseTrainingArguments]:
    """Parse and check what follows `python -m dense_hn.train STAGE`.

    Raises:
        DenseHNError: unknown or missing arguments, values out of range, settings that
            do not go together.
    """
    parsed = arguments.parse(
        f"dense_hn.train {stage}",
        [STAGES[stage].Arguments, DenseTrainingArguments],
        argv,
        usage="%(prog)s --FLAG VALUE …",
        description=STAGES[stage].__doc__.splitlines()[0],
    )
    STAGES[stage].check(*parsed)
    return parsed


def train(stage: str, argv: list[str]) -> None:
    """Run one training stage."""
    STAGES[stage].train(*parse(stage, argv))
