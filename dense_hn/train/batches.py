"""Batches of queries and documents: texts, tokens, and who is whose negative."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from random import Random
from typing import Any

import torch
from torch.utils.data import Dataset

from dense_hn import ranks
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
        self._topics = topics
        self._qids = list(topics)
        self._positives = positives
        self._random = random
        self._seed = seed

    def __len__(self) -> int:
        return len(self._qids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"topics", "positive", "hard", "random"}``: id to text, and docids.

        The negatives are drawn for the first of the topics, and each counts once, whatever
        drew it.
        """
        qids, positive = self._drawn(index)
        drawn = (source.draw(qids[0], self.epoch) for source in self.hard)
        hard = list(dict.fromkeys(chain.from_iterable(drawn)))
        random = self._random.draw(qids[0], self.epoch)
        return {
            "topics": {qid: self._topics[qid] for qid in qids},
            "positive": positive,
            "hard": hard,
            "random": [docid for docid in random if docid not in hard],
        }

    def _drawn(self, index: int) -> tuple[list[str], str]:
        """A topic, and one of its positives."""
        qid = self._qids[index]
        draw = Random(f"{self._seed} positive {self.epoch} {qid}")
        return [qid], draw.choice(self._positives[qid])


class SharedDataset(JointDataset):
    """Positives with several of their topics, so that each is encoded for all of these.

    An epoch has every topic with each of its positives once.
    """

    def __init__(self, *args: Any, topics_per_positive: int, **kwargs: Any) -> None:
        """As JointDataset, and how many topics there are at most."""
        super().__init__(*args, **kwargs)
        self._asking: dict[str, list[str]] = {}
        for qid in self._qids:
            for docid in self._positives[qid]:
                self._asking.setdefault(docid, []).append(qid)
        # Which of how many parts of a positive's topics.
        self._parts = [
            (docid, part, number)
            for docid, qids in self._asking.items()
            for number in [-(-len(qids) // topics_per_positive)]
            for part in range(number)
        ]

    def __len__(self) -> int:
        return len(self._parts)

    def _drawn(self, index: int) -> tuple[list[str], str]:
        docid, part, number = self._parts[index]
        qids = self._asking[docid]
        draw = Random(f"{self._seed} topics {self.epoch} {docid}")
        return draw.sample(qids, len(qids))[part::number], docid


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
        self.excluded = excluded
        self._in_batch = in_batch
        self._teacher = teacher

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tokens of B queries and M passages, [B] columns of positives, [B, M] masks.

        Of several processes, each has the same batch, and the tokens of its own share.

        The items' positives come first, their hard negatives follow, and then their
        random ones. ``positive`` says which column is a query's positive. ``hard`` marks
        the hard negatives of a query's item, ``random`` the random ones of it and (with
        ``in_batch``) everything that came with other items; neither what the query
        excludes. With a teacher, ``teacher`` [B, M] holds its scores, NaN where it has
        none.
        """
        return self.queries(items) | self.passages(items)

    def queries(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Of that, ``qids`` and ``queries``, and the items as ``items``."""
        texts = [text for item in items for text in item["topics"].values()]
        tokens = self._encoder.tokenize(ranks.own(texts), "query", self._query_length)
        return {
            "items": items,
            "qids": [qid for item in items for qid in item["topics"]],
            "queries": self._encoder.batch(tokens),
        }

    def passages(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Of that, everything else."""
        docids, owners, kinds = [], [], []
        for kind in ("positive", "hard", "random"):
            for number, item in enumerate(items):
                brought = [item[kind]] if kind == "positive" else item[kind]
                docids += brought
                owners += [number] * len(brought)
                kinds += [kind] * len(brought)
        qids = [qid for item in items for qid in item["topics"]]
        # The positive of item n stands in column n.
        positive = torch.tensor([n for n, i in enumerate(items) for _ in i["topics"]])
        left = torch.ones(len(qids), len(docids), dtype=torch.bool)
        columns: dict[str, list[int]] = {}
        for column, docid in enumerate(docids):
            columns.setdefault(docid, []).append(column)
        for row, qid in enumerate(qids):
            for docid in columns.keys() & self.excluded[qid]:
                left[row, columns[docid]] = False
        own = positive[:, None] == torch.tensor(owners)
        hard = own & torch.tensor([kind == "hard" for kind in kinds])
        random = own & torch.tensor([kind == "random" for kind in kinds])
        if self._in_batch:
            random = random | ~own
        shown = self._docids.rows(ranks.own(docids))
        passages = [self._tokens[row] for row in shown]
        batch = {
            "docids": docids,
            "passages": self._encoder.batch(passages),
            "positive": positive,
            "hard": hard & left,
            "random": random & left,
        }
        if self._teacher is not None:
            told = [self._teacher.get(qid, {}) for qid in qids]
            scores = [[of.get(docid, torch.nan) for docid in docids] for of in told]
            batch["teacher"] = torch.tensor(scores)
        return batch
