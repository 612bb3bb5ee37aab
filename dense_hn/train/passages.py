"""The passage vectors that ADORE searches: all of them, or each process's share."""

import numpy as np
import torch
from torch import Tensor, distributed

from dense_hn import DenseHNError, ranks, search


class Passages:
    """Vectors that are known by their rows in the corpus, whichever process holds them."""

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
            pool: rows in increasing order that are searched, and are all that is asked
                for; None for all.
            device: of the queries.
            kind: of the numbers that are held.

        Raises:
            DenseHNError: there are more processes than rows.
        """
        number = len(matrix if pool is None else pool)
        part = ranks.share(number)
        if part.start == part.stop:
            raise DenseHNError(f"{number} passages are too few for so many processes")
        self._first = part.start
        rows = part if pool is None else torch.from_numpy(pool[part])
        self._vectors = matrix[rows].to(device, kind)
        self._pool = None if pool is None else torch.from_numpy(pool).to(device)

    def search(self, queries: Tensor, k: int) -> Tensor:
        """The rows [Q, k] of the best, as search.top_k has them.

        Args:
            queries: [Q, D] float32; of several processes, the same in each.
            k: hits per query.
        """
        if ranks.place()[1] == 1:
            _, found = search.top_k(queries, self._vectors, k)
        else:
            _, found = search.top_k_of_shards(queries, self._vectors, self._first, k)
        return found if self._pool is None else self._pool[found]

    def take(self, rows: Tensor) -> Tensor:
        """The vectors [B, K, D] float32 of rows [B, K].

        Of several processes, all ask for the same rows. A row of −1 has some vector.
        """
        places = rows
        if self._pool is not None:
            places = torch.searchsorted(self._pool, rows)
        if ranks.place()[1] == 1:
            return self._vectors[places].float()
        own = places - self._first
        inside = (own >= 0) & (own < len(self._vectors))
        taken = self._vectors[own.clamp(0, len(self._vectors) - 1)].float()
        taken *= inside[:, :, None]
        # One process has a vector, the others zeros.
        distributed.all_reduce(taken)
        return taken
