"""Which documents a query is trained against."""

import random
from collections.abc import Mapping, Sequence

from dense_hn import trec


class StaticNegatives:
    """The best hits of TREC runs, known positives removed by docid.

    Source: STAR's static hard negatives (paper, section 5.1): the top 200 of the
    warm-up model, drawn anew for each query and epoch.
    """

    def __init__(
        self,
        runs: Sequence[Mapping[str, Mapping[str, float]]],
        qrels: Mapping[str, Mapping[str, int]],
        depth: int,
        seed: int,
    ) -> None:
        """Take the first ``depth`` hits of each run, in trec_eval's order.

        Args:
            runs: ``{qid: {docid: score}}`` each; a document in several counts once.
            qrels: judgements; documents of relevance 1 or more are never negatives.
            depth: hits of each run to keep, before positives are removed.
            seed: of the draws.
        """
        self._seed = seed
        self._hits: dict[str, list[str]] = {}
        for run in runs:
            for qid, hits in run.items():
                positives = set(trec.positives(qrels, qid))
                best = [d for d in trec.ranked(hits)[:depth] if d not in positives]
                merged = dict.fromkeys(self._hits.get(qid, []) + best)
                if merged:
                    self._hits[qid] = list(merged)

    def __contains__(self, qid: str) -> bool:
        return qid in self._hits

    def draw(self, qid: str, epoch: int, number: int) -> list[str]:
        """``number`` different docids for a query (all of them if there are fewer).

        The draw depends on seed, epoch and query only, not on batches or processes.
        """
        hits = self._hits[qid]
        chosen = random.Random(f"{self._seed} {epoch} {qid}")
        return chosen.sample(hits, min(number, len(hits)))
