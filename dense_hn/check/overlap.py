"""What splits share that they should not: topics, query texts, relevant passages.

Training on a topic that is evaluated on makes the evaluation invalid. A relevant passage
that training topics share with evaluated ones has been learned as an answer, which
favours it; many published collections are so.
"""

from collections.abc import Iterator
from itertools import combinations

from dense_hn import trec
from dense_hn.check.report import ERROR, WARNING, Finding
from dense_hn.collections.collection import DEV, TEST, TRAIN, Collection, normalised

BUILD = "python -m dense_hn.collections makes a folder of it without these in train"
# Shares of dev and of test that differ by more are another task for the passages.
UNLIKE = 0.25


def findings(collection: Collection) -> Iterator[Finding]:
    """What every two splits share, training first."""
    splits = sorted(collection.topics, key=lambda split: split != TRAIN)
    learned: dict[str, dict[str, list[str]]] = {}
    for one, other in combinations(splits, 2):
        severity = ERROR if one == TRAIN else WARNING
        topics = collection.topics[one]
        shared = [qid for qid in collection.topics[other] if qid in topics]
        yield Finding.of(
            f"shared topic ids: {one}, {other}",
            severity,
            shared,
            f"topic ids of {one} that stand in {other} as well",
            lambda qid, topics=topics: f"{qid}: {topics[qid]}",
            "keep every topic in one split, under an id of its own",
        )
        yield _texts(collection, one, other, severity)
        if one == TRAIN and {one, other} <= collection.qrels.keys():
            learned[other] = _learned(collection, other)
            yield _passages(collection, other, learned[other])
    if {DEV, TEST} <= learned.keys():
        yield _unlike(collection, learned)


def _texts(collection: Collection, one: str, other: str, severity: str) -> Finding:
    ours = _by_text(collection.topics[one])
    theirs = _by_text(collection.topics[other])
    shared = [text for text in theirs if text in ours]
    number = sum(len(theirs[text]) for text in shared)
    return Finding.of(
        f"shared query texts: {one}, {other}",
        severity,
        shared,
        f"query texts of {one} that stand in {other} as well, for {number} of its "
        f"{len(collection.topics[other])} topics",
        lambda text: f"{ours[text][0]} and {theirs[text][0]}: {text}",
        BUILD if one == TRAIN else "",
    )


def _by_text(topics: trec.Topics) -> dict[str, list[str]]:
    """Normalised text to the ids of the topics that have it."""
    found: dict[str, list[str]] = {}
    for qid, text in topics.items():
        if text.strip():
            found.setdefault(normalised(text), []).append(qid)
    return found


def _passages(
    collection: Collection, other: str, shared: dict[str, list[str]]
) -> Finding:
    passages: dict[str, str] = {}
    for qid, both in shared.items():
        passages |= dict.fromkeys(both, qid)
    return Finding.of(
        f"shared relevant passages: {TRAIN}, {other}",
        WARNING,
        passages.items(),
        f"relevant passages of {TRAIN} that are relevant in {other} as well, for "
        f"{len(shared)} of its {len(collection.qrels[other])} topics",
        lambda pair: f"{pair[0]} (query {pair[1]})",
    )


def _unlike(collection: Collection, shared: dict[str, dict[str, list[str]]]) -> Finding:
    """Whether much more, or less, of dev than of test has been learned as an answer."""
    share = {
        split: len(shared[split]) / len(collection.qrels[split])
        for split in (DEV, TEST)
    }
    apart = abs(share[DEV] - share[TEST]) > UNLIKE
    more = max(share, key=share.__getitem__)
    return Finding.of(
        f"unlike splits: {DEV}, {TEST}",
        WARNING,
        list(shared[more]) if apart else [],
        f"{more} topics have relevant passages of {TRAIN}, which are "
        f"{share[DEV]:.0%} of {DEV} and {share[TEST]:.0%} of {TEST}",
        lambda qid: f"{qid}: {', '.join(shared[more][qid])}",
        f"choose settings on passages held out of {TRAIN}, with all their topics, too",
    )


def _learned(collection: Collection, split: str) -> dict[str, list[str]]:
    """Topics of a split to their relevant passages that training topics ask for, too."""
    qrels, trained = collection.qrels[split], collection.qrels[TRAIN]
    learned = {d for qid in trained for d in trec.positives(trained, qid)}
    shared = {
        qid: sorted(learned.intersection(trec.positives(qrels, qid))) for qid in qrels
    }
    return {qid: docids for qid, docids in shared.items() if docids}
