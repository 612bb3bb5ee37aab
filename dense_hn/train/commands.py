"""The training stages by name, and how their arguments are parsed."""

from collections.abc import Mapping
from typing import Any

from dense_hn import DenseHNError
from dense_hn.train import adore, star
from dense_hn.train.trainer import ArgumentParser, DenseTrainingArguments

STAGES = {
    "star": (star.StarArguments, star.train, star.__doc__),
    "adore": (adore.AdoreArguments, adore.train, adore.__doc__),
}


def parse(stage: str, argv: list[str]) -> tuple[Any, DenseTrainingArguments]:
    """Parse what follows `python -m dense_hn.train STAGE`.

    Raises:
        DenseHNError: unknown or missing arguments, values out of range.
    """
    arguments, _, text = STAGES[stage]
    parser = ArgumentParser(
        (arguments, DenseTrainingArguments),
        prog=f"dense_hn.train {stage}",
        usage="%(prog)s --FLAG VALUE …",
        description=text.splitlines()[0],
    )
    try:
        return parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    except ValueError as error:
        raise DenseHNError(f"{stage}: {error}") from error


def argv_of(settings: Mapping[str, Any]) -> list[str]:
    """A recipe's section as arguments: ``{"a": 1, "b": [2, 3]}`` → --a 1 --b 2 3."""
    argv = []
    for key, value in settings.items():
        values = value if isinstance(value, list) else [value]
        argv += [f"--{key}", *map(str, values)]
    return argv


def train(stage: str, argv: list[str]) -> None:
    """Run one training stage."""
    STAGES[stage][1](*parse(stage, argv))
