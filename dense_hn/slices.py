"""Texts cut into slices of similar length, which go through a model together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

# Tokens that go through the model together, texts of similar length, on a GPU and on a
# CPU. A small slice stays in a CPU's cache; a GPU needs more to be busy.
SLICE = (2**14, 2**10)


def sliced(
    columns: Mapping[str, Sequence[Sequence[int]]],
    padding: Mapping[str, int],
    device: torch.device,
    size: int | None = None,
) -> dict[str, Any]:
    """What goes through a model, cut into slices of similar length.

    Args:
        columns: what the tokenizer made of B texts, by name, a row each; ``input_ids``
            among them.
        padding: what each column is filled up with.
        device: which the slices shall suit.
        size: texts of a slice, if not what suits the device.

    Returns:
        ``slices``: mappings of the columns' names and ``attention_mask`` to [b, L],
            int64, padded at the end to the longest of the slice;
        ``places`` [B]: where each text is among all of the slices'.
    """
    lengths = np.array([len(row) for row in columns["input_ids"]])
    order = lengths.argsort(kind="stable")
    if size:
        ends = range(size, len(order), size)
    else:
        ends = _ends(lengths[order].tolist(), SLICE[device.type == "cpu"])
    slices = []
    for rows in np.split(order, ends):
        mask = np.arange(lengths[rows[-1]]) < lengths[rows, None]
        one = {}
        for name, values in columns.items():
            padded = np.full(mask.shape, padding[name])
            padded[mask] = np.concatenate([values[row] for row in rows])
            one[name] = torch.from_numpy(padded)
        slices.append(one | {"attention_mask": torch.from_numpy(mask.astype(np.int64))})
    return {"slices": slices, "places": torch.from_numpy(order.argsort())}


def _ends(lengths: Sequence[int], tokens: int) -> list[int]:
    """Where slices of at most so many tokens end, but for the last; lengths ascend."""
    ends, start = [], 0
    for place, length in enumerate(lengths):
        if place > start and (place - start + 1) * length > tokens:
            ends.append(place)
            start = place
    return ends
