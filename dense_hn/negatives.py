"""Which documents a query is trained against, besides the batch's.

Every source draws by docid, leaves out what the query excludes (its known positives,
and what a teacher suspects to be one), and draws by seed, epoch and query alone,
whatever the batches and processes.
"""

import random
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from dense_hn import trec


class StaticNegatives:
    """The best hits of TREC runs.

    Source: STAR's static hard negatives (paper, section 5.1): the top 200 of the
    warm-up model, drawn anew for each query and epoch.
    """

    def __init__(
        self,
        runs: Sequence[Mapping[str, Mapping[str, float]]],
        excluded: Mapping[str, AbstractSet[str]],
        depth: int,
        number: int,
        seed: object,
    ) -> None:
        """Take the first ``depth`` hits of each run.

        Args:
            runs: ``{qid: {docid: score}}`` each, in trec_eval's order; a document in
                several counts once.
            excluded: docids that are never negatives, by query; they keep their ranks.
            depth: last rank that is drawn from.
            number: negatives drawn per query.
            seed: of the draws.
        """
        self._number = number
        self._seed = seed
        self._hits: dict[str, list[str]] = {}
        for run in runs:
            for qid, hits in run.items():
                best = trec.ranked(hits)[:depth]
                left = [d for d in best if d not in excluded.get(qid, ())]
                merged = dict.fromkeys(self._hits.get(qid, []) + left)
                if merged:
                    self._hits[qid] = list(merged)

    def __contains__(self, qid: str) -> bool:
        return qid in self._hits

    def hits(self, qid: str) -> list[str]:
        """All that is drawn from for a query."""
        return self._hits.get(qid, [])

    def draw(self, qid: str, epoch: int) -> list[str]:
        """Different docids for a query: all of them if there are too few."""
        hits = self.hits(qid)
        chosen = random.Random(f"{self._seed} {epoch} {qid}")
        return chosen.sample(hits, min(self._number, len(hits)))


class RandomNegatives:
    """Documents of the whole corpus, each as likely as any other.

    Source: the random negatives of the paper's section 3 and its "Rand Neg" rows.
    """

    def __init__(
        self,
        docids: Sequence[str],
        excluded: Mapping[str, AbstractSet[str]],
        number: int,
        seed: object,
    ) -> None:
        """Draw ``number`` per query of ``docids``, none of a query's ``excluded``."""
        self._docids = docids
        self._excluded = excluded
        self._number = number
        self._seed = seed

    def draw(self, qid: str, epoch: int) -> list[str]:
        """Different docids for a query: all that are left if there are too few."""
        excluded = self._excluded.get(qid, frozenset())
        # As many more as may turn out to be excluded.
        wanted = min(self._number + len(excluded), len(self._docids))
        chosen = random.Random(f"{self._seed} random {epoch} {qid}")
        rows = chosen.sample(range(len(self._docids)), wanted)
        drawn = (self._docids[row] for row in rows)
        return [docid for docid in drawn if docid not in excluded][: self._number]
