"""Runs a command line of ours in this process, which has imported what it takes."""

import importlib.util
import sys

import pytest


def run(module: str, *arguments: str) -> None:
    """What `python -m MODULE ARGUMENTS` does, but that errors are raised."""
    if importlib.util.find_spec(module).submodule_search_locations:
        module += ".__main__"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        importlib.import_module(module).main()
