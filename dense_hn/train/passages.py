"""The passages that ADORE searches: all of them, or each process's share."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, distributed

from dense_hn import DenseHNError, ranks, search
from dense_hn.quantised import Codes


class Passages(ABC):
    """Passages that are known by their rows in the corpus, whichever process holds them."""

    def __init__(
        self, number: int, pool: np.ndarray | None, device: torch.device
    ) -> None:
        """Divide them among the processes.

        Args:
            number: N, of the corpus.
            pool: rows in increasing order that are searched, and are all that is asked
                for; None for all.
            device: of the queries.

        Raises:
            DenseHNError: there are more processes than rows.
        """
        number = number if pool is None else len(pool)
        self._share = ranks.share(number)
        if self._share.start == self._share.stop:
            raise DenseHNError(f"{number} passages are too few for so many processes")
        self._pool = None if pool is None else torch.from_numpy(pool).to(device)

    def search(self, queries: Tensor, k: int) -> Tensor:
        """The rows [Q, k] of the best; equal scores are ordered by row.

        Args:
            queries: [Q, D] float32; of several processes, the same in each.
            k: hits per query.
        """
        scores, found = self._best(queries, k)
        if ranks.place()[1] > 1:
            _, found = search.merged(scores, found + self._share.start, k)
        return found if self._pool is None else self._pool[found]

    def take(self, rows: Tensor) -> Tensor:
        """The vectors [B, K, D] float32 of rows [B, K].

        Of several processes, all ask for the same rows. A row of −1 has some vector.
        """
        if self._pool is None:
            return self._at(rows)
        return self._at(torch.searchsorted(self._pool, rows))

    @abstractmethod
    def _best(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and places, in the share, of its best."""

    @abstractmethod
    def _at(self, places: Tensor) -> Tensor:
        """The vectors at places among all that are searched."""


class WholePassages(Passages):
    """Vectors as they were encoded."""

    def __init__(
        self,
        matrix: Tensor,
        pool: np.ndarray | None,
        device: torch.device,
        kind: torch.dtype,
    ) -> None:
        """Take this process's share to its device.

        Args:
            matrix: [N, D], of the corpus; may be a file that is read as needed.
            pool: see Passages.
            device: see there.
            kind: of the numbers that are held.
        """
        super().__init__(len(matrix), pool, device)
        rows = self._share if pool is None else torch.from_numpy(pool[self._share])
        self._vectors = matrix[rows].to(device, kind)

    def _best(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return search.top_k(queries, self._vectors, k)

    def _at(self, places: Tensor) -> Tensor:
        if ranks.place()[1] == 1:
            return self._vectors[places].float()
        own = places - self._share.start
        inside = (own >= 0) & (own < len(self._vectors))
        taken = self._vectors[own.clamp(0, len(self._vectors) - 1)].float()
        taken *= inside[:, :, None]
        # One process has a vector, the others zeros.
        distributed.all_reduce(taken)
        return taken


class CodedPassages(Passages):
    """Codes of an index, small enough that each process holds all and searches its share."""

    def __init__(
        self, codes: Codes, pool: np.ndarray | None, device: torch.device
    ) -> None:
        """Take them to a device; arguments as of Passages."""
        super().__init__(len(codes), pool, device)
        self._codes = codes.to(device)
        self._searched = codes.codes if self._pool is None else codes.codes[self._pool]

    def _best(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return self._codes.top_k(queries, self._searched[self._share], k)

    def _at(self, places: Tensor) -> Tensor:
        return self._codes.take(self._searched[places])
