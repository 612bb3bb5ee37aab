"""What every `python -m dense_hn.…` does around its work."""

import argparse
import logging
import os
import sys
from collections.abc import Callable

from dense_hn import DenseHNError


def parser(prog: str, about: str) -> argparse.ArgumentParser:
    """A parser whose ``--help`` starts with ``about`` as it stands, a module's docstring."""
    return argparse.ArgumentParser(
        prog=prog,
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[], None]) -> None:
    """Run a command's ``main``; a DenseHNError becomes one line and status 2, Ctrl-C 130."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("dense_hn").setLevel(logging.INFO)
    try:
        main()
        sys.stdout.flush()
    except DenseHNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # Whoever reads has seen enough; what Python flushes at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
