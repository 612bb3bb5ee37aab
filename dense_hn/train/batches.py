"""Batches of queries and documents: texts, tokens, and who is whose negative."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from random import Random
from typing import Any

import torch
from torch.utils.data import Dataset

from dense_hn.collections.corpus import Corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.negatives import RandomNegatives, StaticNegatives
from dense_hn.token_cache import tokens_of


class JointDataset(Dataset):
    """Training topics with one positive and their negatives, drawn anew each epoch."""

    def __init__(
        self,
        topics: Mapping[str, str],
        positives: Mapping[str, Sequence[str]],
        hard: Sequence[StaticNegatives],
        random: RandomNegatives,
        seed: int,
    ) -> None:
        self.epoch = 0
        self.hard = hard
        self._topics = list(topics.items())
        self._positives = positives
        self._random = random
        self._seed = seed

    def __len__(self) -> int:
        return len(self._topics)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"qid", "query", "positive", "hard", "random"}``: the text, and docids."""
        qid, query = self._topics[index]
        draw = Random(f"{self._seed} positive {self.epoch} {qid}")
        hard = [d for source in self.hard for d in source.draw(qid, self.epoch)]
        return {
            "qid": qid,
            "query": query,
            "positive": draw.choice(self._positives[qid]),
            "hard": hard,
            "random": self._random.draw(qid, self.epoch),
        }


class JointCollator:
    """Items of a :class:`JointDataset` to one batch of tokens, masks and scores."""

    def __init__(
        self,
        encoder: DenseEncoder,
        corpus: Corpus,
        excluded: Mapping[str, AbstractSet[str]],
        *,
        in_batch: bool = True,
        teacher: Mapping[str, Mapping[str, float]] | None = None,
        query_length: int | None = None,
        passage_length: int | None = None,
    ) -> None:
        self._encoder = encoder
        self._docids = corpus.docids
        self._tokens = tokens_of(encoder, corpus, "passage", passage_length)
        self._query_length = query_length
        self._excluded = excluded
        self._in_batch = in_batch
        self._teacher = teacher

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tokens of B queries and M passages, and [B, M] masks.

        The first B passages are the positives, in the order of the queries; their hard
        negatives follow, and then their random ones. ``hard`` marks a query's own hard
        negatives, ``random`` its own random ones and (with ``in_batch``) everything
        that came with other queries; neither what the query excludes. With a teacher,
        ``teacher`` [B, M] holds its scores, NaN where it has none.
        """
        docids, owners, kinds = [], [], []
        for kind in ("positive", "hard", "random"):
            for row, item in enumerate(items):
                brought = [item[kind]] if kind == "positive" else item[kind]
                docids += brought
                owners += [row] * len(brought)
                kinds += [kind] * len(brought)
        qids = [item["qid"] for item in items]
        left = torch.ones(len(qids), len(docids), dtype=torch.bool)
        columns: dict[str, list[int]] = {}
        for column, docid in enumerate(docids):
            columns.setdefault(docid, []).append(column)
        for row, qid in enumerate(qids):
            for docid in columns.keys() & self._excluded[qid]:
                left[row, columns[docid]] = False
        own = torch.arange(len(items))[:, None] == torch.tensor(owners)
        hard = own & torch.tensor([kind == "hard" for kind in kinds])
        random = own & torch.tensor([kind == "random" for kind in kinds])
        if self._in_batch:
            random = random | ~own
        texts = [item["query"] for item in items]
        queries = self._encoder.tokenize(texts, "query", self._query_length)
        passages = [self._tokens[row] for row in self._docids.rows(docids)]
        batch = {
            "qids": qids,
            "docids": docids,
            "queries": self._encoder.batch(queries),
            "passages": self._encoder.batch(passages),
            "hard": hard & left,
            "random": random & left,
        }
        if self._teacher is not None:
            scores = [
                [self._teacher[q].get(d, torch.nan) for d in docids] for q in qids
            ]
            batch["teacher"] = torch.tensor(scores)
        return batch
