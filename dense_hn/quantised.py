"""Passages as product-quantised codes, searched and trained as they are.

A vector of D numbers is cut into M parts, and each part is known by the nearest of 256
centroids: M bytes a passage. A query's product with a passage is the sum over the parts
of its products with the passage's centroids, which are looked up in a table of M × 256
(Jégou et al. 2011, section 3.2). Where a rotation stands before the cut (OPQ, Ge et al. 2013),
queries are rotated.

The codes are those of a faiss index (faiss.IndexPQ of 8 bits), and scores are the
index's own, to rounding. The centroids can be trained: what a passage's code says stays,
what it stands for moves (JPQ, Zhan et al. 2021, arXiv 2108.00644, section 4).
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from dense_hn import search
from dense_hn.export.faiss_index import CODES

if TYPE_CHECKING:
    import faiss

# Passages that are decoded at a time.
CHUNK = 2**16


class Codes(nn.Module):
    """N passages of M bytes, and what they stand for."""

    def __init__(
        self, codes: np.ndarray, centroids: np.ndarray, rotation: np.ndarray | None
    ) -> None:
        """Hold copies of what an index holds.

        Args:
            codes: [N, M] uint8, in the order of the corpus.
            centroids: [M, 256, d] float32.
            rotation: [M·d, D] float32 that takes a query to the space of the centroids;
                None where it is in it, and D is M·d.
        """
        super().__init__()
        self.centroids = nn.Parameter(torch.tensor(centroids))
        # An index's file has these, and no checkpoint needs them.
        self.register_buffer("codes", torch.tensor(codes), persistent=False)
        turned = None if rotation is None else torch.tensor(rotation)
        self.register_buffer("rotation", turned, persistent=False)
        starts = CODES * torch.arange(codes.shape[1], dtype=torch.int32)
        self.register_buffer("_starts", starts, persistent=False)

    def __len__(self) -> int:
        return len(self.codes)

    @torch.no_grad()
    def top_k(self, queries: Tensor, codes: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k codes with the highest scores, for each query.

        Memory is that of the tables, [M·256, Q] float32, and of a chunk of scores.

        Args:
            queries: [Q, D] float32.
            codes: [n, M] uint8, of some passages or all; 1 or more.
            k: hits per query; n when they are fewer.

        Returns:
            scores [Q, k] (float32, the sums of M numbers) in decreasing order and rows
            [Q, k] among the codes; equal scores are ordered by row.
        """
        tables = self._tables(queries)

        def products(part: slice) -> Tensor:
            return embedding_bag(codes[part].int() + self._starts, tables, mode="sum")

        return search.best_of(products, len(codes), queries, min(k, len(codes)))

    def take(self, codes: Tensor) -> Tensor:
        """What codes stand for, as a query sees it, with gradients for the centroids.

        Args:
            codes: [..., M] uint8.

        Returns:
            [..., D] float32, whose product with a query is the index's score.
        """
        # One table for all parts, so that their gradients are summed in one place.
        table = self.centroids.flatten(0, 1)
        found = embedding(codes.int() + self._starts, table).flatten(-2)
        return found if self.rotation is None else found @ self.rotation

    @torch.no_grad()
    def decoded(self, rows: slice | Sequence[int] = slice(None)) -> Tensor:
        """[n, D] float32 on the CPU, what rows of the passages stand for now; all of them."""
        codes = self.codes[rows]
        turned = self.rotation is not None
        length = self.rotation.shape[1] if turned else self.centroids[:, 0].numel()
        made = torch.empty(len(codes), length)
        for vectors, part in zip(made.split(CHUNK), codes.split(CHUNK), strict=True):
            vectors.copy_(self.take(part))
        return made

    def digest(self, passages: str) -> str:
        """What these passages are known by, when their centroids are of no encoder's alone.

        Args:
            passages: Vectors.encoder of those that were coded.
        """
        state = hashlib.sha256(passages.encode())
        state.update(self.centroids.detach().cpu().contiguous().numpy())
        return state.hexdigest()

    def _tables(self, queries: Tensor) -> Tensor:
        """[M·256, Q] products of the queries with all centroids."""
        if self.rotation is not None:
            queries = queries @ self.rotation.T
        parts = queries.view(len(queries), *self.centroids.shape[::2])
        return torch.einsum("qmd,mcd->mcq", parts, self.centroids).flatten(0, 1)

    def as_index(self) -> "faiss.Index":
        """An IndexPQ of the codes and what they stand for now, behind the rotation."""
        import faiss

        parts, _, length = self.centroids.shape
        index = faiss.IndexPQ(parts * length, parts, 8, faiss.METRIC_INNER_PRODUCT)
        centroids = self.centroids.detach().cpu().numpy()
        faiss.copy_array_to_vector(centroids.ravel(), index.pq.centroids)
        index.is_trained = True
        index.add_sa_codes(self.codes.cpu().numpy())
        if self.rotation is None:
            return index
        rotation = self.rotation.cpu().numpy()
        turned = faiss.LinearTransform(*rotation.shape[::-1], False)
        faiss.copy_array_to_vector(rotation.ravel(), turned.A)
        turned.is_trained = True
        return faiss.IndexPreTransform(turned, index)


def codes_of(
    leaf: "faiss.Index", lines: np.ndarray, rotation: np.ndarray | None
) -> Codes | None:
    """The codes of an index that holds some; None where it holds anything else.

    Args:
        leaf: what holds the vectors, inside what is around it.
        lines: [N] the row of the corpus for each of its vectors.
        rotation: see Codes.
    """
    import faiss

    if not isinstance(leaf, faiss.IndexPQ) or leaf.pq.nbits != 8:
        return None
    codes = np.empty((leaf.ntotal, leaf.pq.M), np.uint8)
    codes[lines] = faiss.vector_to_array(leaf.codes).reshape(codes.shape)
    shape = leaf.pq.M, CODES, leaf.pq.dsub
    centroids = faiss.vector_to_array(leaf.pq.centroids).reshape(shape)
    return Codes(codes, centroids, rotation)
