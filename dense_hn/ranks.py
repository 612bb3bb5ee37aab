"""The processes that torchrun started, where a stage divides its work among them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function

from dense_hn import DenseHNError, files


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


def share(number: int, rank: int | None = None) -> slice:
    """This process's part of so many things, one after another; or another's."""
    own, ranks = place()
    rank = own if rank is None else rank
    return slice(number * rank // ranks, number * (rank + 1) // ranks)


def own(things: Sequence) -> Sequence:
    """The process's share of a batch; the first of all, to be left out, if it has none.

    So that every process goes through the layers, and has gradients, at every step.
    """
    return things[share(len(things))] or things[:1]


def gather(vectors: Tensor, number: int) -> Tensor:
    """The vectors of all processes, with gradients for this one's.

    Each process then has the loss of the whole batch; what goes back to its share is
    multiplied by the number of processes, whose mean DistributedDataParallel takes.

    Args:
        vectors: [b, D], of what :func:`own` gave.
        number: of all processes together.

    Returns:
        [number, D], the same everywhere.
    """
    if place()[1] == 1:
        return vectors
    part = share(number)
    if len(vectors) != max(1, part.stop - part.start):
        raise DenseHNError(
            "a process has not its own share of the batch: workers that load it must be "
            "forked (--dataloader_multiprocessing_context fork), or none"
        )
    return _Gather.apply(vectors, number)


class _Gather(Function):
    @staticmethod
    def forward(ctx, vectors: Tensor, number: int) -> Tensor:
        """Pad to the largest share, so that one all-gather does."""
        ranks = place()[1]
        parts = [share(number, rank) for rank in range(ranks)]
        ctx.part, ctx.shape = share(number), vectors.shape
        most = max(part.stop - part.start for part in parts)
        padded = vectors.new_zeros(most, vectors.shape[1])
        size = ctx.part.stop - ctx.part.start
        padded[:size] = vectors[:size]
        every = vectors.new_empty(ranks * most, vectors.shape[1])
        distributed.all_gather_into_tensor(every, padded)
        kept = [
            every[rank * most : rank * most + part.stop - part.start]
            for rank, part in enumerate(parts)
        ]
        return torch.cat(kept)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        """This process's rows."""
        back = gradient.new_zeros(ctx.shape)
        back[: ctx.part.stop - ctx.part.start] = place()[1] * gradient[ctx.part]
        return back, None


def summed(table: Tensor) -> Tensor:
    """The sum of all processes' tables, in each of them."""
    if distributed.is_initialized():
        distributed.all_reduce(table)
    return table


def one_folder(
    path: str | Path, *holds: str, also: Sequence[str] = ()
) -> AbstractContextManager[Path]:
    """files.whole_folder, which all processes write into; renamed when all are done."""
    made = files.whole_folder(path, *holds, also=also)
    return _of_the_first(made, files.partial_of(path))


def parts(path: str | Path, facts: Mapping[str, Any]) -> AbstractContextManager[Path]:
    """files.parts, which all processes write into."""
    return _of_the_first(files.parts(path, facts), files.parts_of(path))


@contextmanager
def _of_the_first(made: AbstractContextManager[Path], path: Path) -> Iterator[Path]:
    """A folder that the first process makes, and leaves when all are done."""
    if place()[0]:
        wait()
        yield path
        wait()
    else:
        with made as folder:
            wait()
            yield folder
            wait()
    wait()
