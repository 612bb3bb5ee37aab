"""Batches of queries, with the rows of what they ask for: what ADORE trains on."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dense_hn import trec
from dense_hn.columns import Docids
from dense_hn.encoder import DenseEncoder
from dense_hn.negatives import RandomNegatives, StaticNegatives
from dense_hn.ranks import own

# A row behind all others.
LAST = torch.iinfo(torch.int64).max


class AdoreDataset(Dataset):
    """Training topics, and the corpus rows of their positives, of what they exclude, and
    of the negatives drawn for them beside the dynamic ones."""

    def __init__(
        self,
        topics: Mapping[str, str],
        qrels: Mapping[str, Mapping[str, int]],
        excluded: Mapping[str, AbstractSet[str]],
        docids: Docids,
        drawn: Sequence[StaticNegatives | RandomNegatives] = (),
        teacher: Mapping[str, Mapping[str, float]] | None = None,
        others: Mapping[str, AbstractSet[str]] | None = None,
    ) -> None:
        self.epoch = 0
        self._teacher = teacher
        self._drawn = drawn
        self._docids = docids
        self._items = []
        for qid, text in topics.items():
            positives = trec.positives(qrels, qid)
            passed_over = (others or {}).get(qid, frozenset())
            suspects = excluded[qid].difference(positives, passed_over)
            self._items.append(
                {
                    "qid": qid,
                    "query": text,
                    "positives": [docids.row(docid) for docid in positives],
                    "grades": [qrels[qid][docid] for docid in positives],
                    "suspects": sorted(docids.row(docid) for docid in suspects),
                    "others": sorted(docids.row(docid) for docid in passed_over),
                }
            )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"number", "qid", "query", "positives", "grades", "suspects", "others",
        "drawn"}``:
        the place among the topics, the text, and rows. With a teacher also ``told``: what
        it scored, rows in increasing order, and the scores."""
        item = self._items[index]
        if self._teacher is not None:
            scored = self._teacher.get(item["qid"], {})
            rows = self._docids.rows(list(scored))
            order = rows.argsort()
            scores = np.array(list(scored.values()), np.float32)
            item = item | {"told": (rows[order].tolist(), scores[order].tolist())}
        docids = [d for s in self._drawn for d in s.draw(item["qid"], self.epoch)]
        rows = self._docids.rows(list(dict.fromkeys(docids)))
        return item | {"number": index, "drawn": rows.tolist()}


class AdoreCollator:
    """Items of an :class:`AdoreDataset` to one batch."""

    def __init__(self, encoder: DenseEncoder, query_length: int | None = None) -> None:
        self._encoder = encoder
        self._query_length = query_length

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tokens of B queries (of several processes, of each one's share) and their
        ``numbers`` [B]; ``rows`` [B, P] of their positives with their ``grades``
        (0 where padded); ``excluded`` [B, E] rows that are no negatives, ``others`` [B, O]
        those that are in no list, ``drawn`` [B, N] those of negatives beside the dynamic
        ones (all −1 where padded). With a
        teacher ``told`` [B, T], rows in increasing order (LAST where padded, and at the
        end), and ``scores`` [B, T] of them.
        """
        excluded = [item["positives"] + item["suspects"] for item in items]
        texts = own([item["query"] for item in items])
        tokens = self._encoder.tokenize(texts, "query", self._query_length)
        told = {}
        if "told" in items[0]:
            # One that is none at the end of each, so that there is a row to look at.
            rows = [item["told"][0] + [LAST] for item in items]
            scores = [item["told"][1] + [0] for item in items]
            told["told"] = _pad(rows, LAST)
            told["scores"] = _pad(scores, 0, torch.float32)
        return told | {
            "qids": [item["qid"] for item in items],
            "numbers": torch.tensor([item["number"] for item in items]),
            "queries": self._encoder.batch(tokens),
            "rows": _pad([item["positives"] for item in items], 0),
            "grades": _pad([item["grades"] for item in items], 0),
            "excluded": _pad(excluded, -1),
            "others": _pad([item["others"] for item in items], -1),
            "drawn": _pad([item["drawn"] for item in items], -1),
        }


def without(rows: Tensor, others: Tensor) -> Tensor:
    """Ranked rows [B, K] without ``others`` [B, O]: what is behind moves up, and −1 follows."""
    if not others.shape[1]:
        return rows
    found = (rows[:, :, None] == others[:, None, :]).any(dim=2)
    order = found.int().argsort(dim=1, stable=True)
    return rows.masked_fill(found, -1).gather(1, order)


def _pad(
    rows: Sequence[Sequence[float]], value: int, kind: torch.dtype = torch.int64
) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row, dtype=kind) for row in rows],
        batch_first=True,
        padding_value=value,
    )


def scores_of(rows: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """The teacher's scores of rows [B, K], of a batch with ``told``; NaN where it has none."""
    told = batch["told"]
    places = torch.searchsorted(told, rows).clamp(max=told.shape[1] - 1)
    found = told.gather(1, places) == rows
    return batch["scores"].gather(1, places).masked_fill(~found, torch.nan)
