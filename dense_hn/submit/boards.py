"""What each leaderboard asks, as data.

MS MARCO: README.md and eval/run_eval.py of the two repositories named below. TREC Deep
Learning: hits and topics from the track's guidelines (microsoft/msmarco,
TREC-Deep-Learning-2019.md to -2022.md); run tags from the scripts with which NIST checked
the runs of 2020 (``[A-Za-z0-9_-]{1,15}``) and 2022 (``{1,25}``). Those of 2019 and 2021
were not to be had, so the stricter rule of 2020 stands for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

SPLITS = ("dev", "eval")
TYPES = ("full ranking", "reranking")


@dataclass(frozen=True, kw_only=True, slots=True)
class MsMarco:
    """A board that takes ``qid<TAB>docid<TAB>rank`` of dev and eval topics."""

    # Hits per topic, at most.
    hits: int
    # Topics of each split.
    topics: Mapping[str, int]
    # Where packages are handed in, on GitHub.
    repository: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TrecDl:
    """A year's task of the TREC Deep Learning track, which takes TREC runs."""

    # Hits per topic, at most.
    hits: int
    # Test topics, judged or not.
    topics: int
    # Characters of a run tag, at most.
    tag_length: int


MSMARCO = {
    "msmarco-passage": MsMarco(
        hits=1000,
        topics={"dev": 6980, "eval": 6837},
        repository="microsoft/MSMARCO-Passage-Ranking-Submissions",
    ),
    "msmarco-document": MsMarco(
        hits=100,
        topics={"dev": 5193, "eval": 5793},
        repository="microsoft/MSMARCO-Document-Ranking-Submissions",
    ),
}
TREC_DL = {
    (2019, "passage"): TrecDl(hits=1000, topics=200, tag_length=15),
    (2019, "document"): TrecDl(hits=1000, topics=200, tag_length=15),
    (2020, "passage"): TrecDl(hits=1000, topics=200, tag_length=15),
    (2020, "document"): TrecDl(hits=100, topics=200, tag_length=15),
    (2021, "passage"): TrecDl(hits=100, topics=477, tag_length=15),
    (2021, "document"): TrecDl(hits=100, topics=477, tag_length=15),
    (2022, "passage"): TrecDl(hits=100, topics=500, tag_length=25),
    (2022, "document"): TrecDl(hits=100, topics=500, tag_length=25),
}
