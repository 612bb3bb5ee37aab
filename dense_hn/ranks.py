"""The processes that torchrun started, where a stage divides its work among them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from dense_hn.files import partial_of, whole_folder


def start() -> None:
    """Let this process meet the others, if torchrun started it, on a GPU of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # The others wait as long as the slowest needs.
        distributed.init_process_group(timeout=timedelta(days=7))


def place() -> tuple[int, int]:
    """This process's number, and how many there are."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def wait() -> None:
    """Go on when all processes are here."""
    if distributed.is_initialized():
        distributed.barrier()


@contextmanager
def one_folder(
    path: str | Path, *holds: str, also: Sequence[str] = ()
) -> Iterator[Path]:
    """files.whole_folder, which all processes write into; renamed when all are done."""
    if place()[0]:
        wait()
        yield partial_of(path)
        wait()
    else:
        with whole_folder(path, *holds, also=also) as partial:
            wait()
            yield partial
            wait()
    wait()
