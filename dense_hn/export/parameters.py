"""The parameters of a form: those that are given, and defaults for the rest."""

from collections.abc import Mapping

from dense_hn import DenseHNError

# Where they start, if not at 1.
LEAST = {"M": 2}


def complete(
    form: str, given: Mapping[str, int], defaults: Mapping[str, int]
) -> dict[str, int]:
    """All parameters of a form, in the order of its defaults.

    Args:
        form: its name, for messages.
        given: some of its parameters.
        defaults: all of them.

    Raises:
        DenseHNError: a parameter that the form does not have, or that is too small.
    """
    for name in given:
        if name not in defaults:
            has = f"its parameters are {', '.join(defaults)}"
            has = has if defaults else "it has none"
            raise DenseHNError(f"form {form} has no parameter {name}: {has}")
    settled = {**defaults, **given}
    for name, value in settled.items():
        least = LEAST.get(name, 1)
        if value < least:
            raise DenseHNError(f"{name} is {value}; it starts at {least}")
    return settled
