"""Settings, from a command line or a recipe, to a checked dataclass."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NoReturn

from transformers import HfArgumentParser

from dense_hn import DenseHNError
from dense_hn.names import require_known, unknown


class ArgumentParser(HfArgumentParser):
    """HfArgumentParser whose complaints are ours."""

    def error(self, message: str) -> NoReturn:
        """Raise argparse's message as a DenseHNError."""
        raise DenseHNError(f"{self.prog}: {message}")


def parse(name: str, kinds: Sequence[type], argv: list[str], **about: str) -> tuple:
    """Parse arguments into one instance of each dataclass.

    Args:
        name: of the command, for messages.
        kinds: the dataclasses.
        argv: ``--field value …``.
        about: argparse's ``usage`` and ``description``.

    Raises:
        DenseHNError: unknown or missing arguments, values out of range.
    """
    parser = ArgumentParser(kinds, prog=name, allow_abbrev=False, **about)
    try:
        *parsed, left = parser.parse_args_into_dataclasses(
            argv, look_for_args_file=False, return_remaining_strings=True
        )
    except (ValueError, ImportError) as error:
        raise DenseHNError(f"{name}: {error}") from error
    if left:
        known = [field.name for kind in kinds for field in fields(kind) if field.init]
        key = left[0].lstrip("-")
        raise DenseHNError(f"{name}: {unknown('setting', key, known)}")
    return tuple(parsed)


def fill(name: str, kind: type, settings: Mapping[str, Any]) -> Any:
    """Make one dataclass of a recipe's section, its values turned to the fields' types.

    Raises:
        DenseHNError: as :func:`parse`.
    """
    known = [field.name for field in fields(kind)]
    require_known(settings, known, name, "setting")
    return parse(name, [kind], argv_of(settings))[0]


def argv_of(settings: Mapping[str, Any]) -> list[str]:
    """``{"a": 1, "b": [2, 3], "c": []}`` to ``--a 1 --b 2 3``.

    False becomes ``no``, which switches take too: YAML reads `eval_strategy: no` so.
    """
    argv = []
    for key, value in settings.items():
        values = value if isinstance(value, list) else [value]
        values = ["no" if value is False else value for value in values]
        if values:
            argv += [f"--{key}", *map(str, values)]
    return argv
