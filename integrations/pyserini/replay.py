"""Runs the commands of a page in a test's own process."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def run_here(module: str, arguments: Sequence[str]) -> None:
    """Do what `python -m MODULE ARGUMENTS` does.

    Args:
        module: one of dense_hn's, a file or a package.
        arguments: of its command line. An index that they name is given to Pyserini by
            its absolute path: Java keeps the working directory that it was started in.
    """
    arguments = list(arguments)
    if module == "dense_hn.pyserini":
        for place, word in enumerate(arguments[:-1], 1):
            if word == "--index":
                arguments[place] = str(Path(arguments[place]).resolve())
    package = importlib.util.find_spec(module).submodule_search_locations
    room = importlib.import_module(f"{module}.__main__" if package else module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        room.main()
