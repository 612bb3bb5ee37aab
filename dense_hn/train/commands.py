"""The trainings by name."""

from typing import Any

from dense_hn import ranks
from dense_hn.train import adore, arguments, cross, dynamic, star, warmup
from dense_hn.train.training_arguments import DenseTrainingArguments

# Those of encoders, which recipes are made of.
STAGES = {"warmup": warmup, "star": star, "adore": adore, "dynamic": dynamic}
TRAININGS = {**STAGES, "cross": cross}


def one_sided(stage: str) -> bool:
    """Whether it trains the query side alone, against passage vectors that stay."""
    return stage == "adore"


def parse(name: str, argv: list[str]) -> tuple[Any, DenseTrainingArguments]:
    """Parse and check what follows `python -m dense_hn.train NAME`.

    Raises:
        DenseHNError: unknown or missing arguments, values out of range, settings that
            do not go together.
    """
    parsed = arguments.parse(
        f"dense_hn.train {name}",
        [TRAININGS[name].Arguments, DenseTrainingArguments],
        argv,
        usage="%(prog)s --FLAG VALUE …",
        description=TRAININGS[name].__doc__.splitlines()[0],
    )
    TRAININGS[name].check(*parsed)
    return parsed


def train(name: str, argv: list[str]) -> None:
    """Run one training."""
    # Before accelerate lets processes meet in a way that a GPU's tensors alone can go.
    ranks.start()
    TRAININGS[name].train(*parse(name, argv))
