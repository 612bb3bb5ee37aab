"""What every `python -m dense_hn.…` does around its work."""

import argparse
import atexit
import errno
import logging
import os
import sys
from collections.abc import Callable

from dense_hn import DenseHNError

# What libraries make of it: most repeat the system's words, torch.save tells its own line.
FULL = (os.strerror(errno.ENOSPC), "inline_container.cc")


def parser(prog: str, about: str) -> argparse.ArgumentParser:
    """A parser whose ``--help`` starts with ``about`` as it stands, a module's docstring."""
    return argparse.ArgumentParser(
        prog=prog,
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[], None]) -> None:
    """Run a command's ``main``.

    A DenseHNError, or a disk without room, becomes one line and status 2, Ctrl-C 130.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("dense_hn").setLevel(logging.INFO)
    try:
        main()
        sys.stdout.flush()
        # At the end of the process, which may run another command before; not of one that
        # failed, which might wait here for the others.
        atexit.register(_leave)
    except DenseHNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # Whoever reads has seen enough; what Python flushes at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if not full(error):
            raise
        where = getattr(error, "filename", None) or "the disk"
        print(
            f"error: no space is left on {where}; free some, and call the same again",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _leave() -> None:
    """Take leave of the processes that torchrun started, if this is one of them.

    Their threads would otherwise be there when Python ends, which now and then aborts it
    (pytorch/pytorch issue 190489).
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def full(error: BaseException | None) -> bool:
    """Whether a disk had no room: Python's error, or one that a library made of it."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(said in str(error) for said in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False
