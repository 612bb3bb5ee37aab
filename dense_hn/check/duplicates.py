"""Passages that repeat another, and those that repeat a relevant one without being so.

A passage with the words of a relevant one that nobody judged relevant is a false
negative: BM25 and every model rank it where its like is, so that it is drawn as a hard
negative in training, and counted as wrong in an evaluation.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from tqdm import tqdm

from dense_hn import trec
from dense_hn.check.near import NearDuplicates
from dense_hn.check.report import INFORMATION, WARNING, Finding
from dense_hn.collections.collection import Collection, normalised


def findings(collection: Collection) -> Iterator[Finding]:
    """Copies in the corpus, and copies and near-duplicates of relevant passages."""
    yield Finding.of(
        "copies",
        INFORMATION,
        _copies(collection.corpus),
        "passages that repeat another word for word",
        lambda pair: f"{pair[0]} repeats {pair[1]}",
    )
    # docid → topic, a relevant passage of it, similarity.
    copied: dict[str, tuple] = {}
    near: dict[str, tuple] = {}
    topics: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for docid, topic, positive, similar, copy in _unjudged(collection):
        (copied if copy else near).setdefault(docid, (positive, topic, similar))
        topics[copy].add(topic)
    for name, found, copy, what in (
        ("unjudged copies", copied, True, "repeat a relevant passage word for word"),
        ("unjudged near-duplicates", near, False, "nearly repeat a relevant passage"),
    ):
        yield Finding.of(
            name,
            WARNING,
            found.items(),
            f"passages that {what} and are not judged relevant, for "
            f"{len(topics[copy])} topics: false negatives",
            _example,
        )


def _copies(corpus: Mapping[str, str]) -> list[tuple[str, str]]:
    """(docid, docid of the first with its words) of every passage that repeats one.

    Passages without words are not meant. Kept in memory: eight bytes a passage, and the
    words of those that repeat.
    """
    texts = tqdm(corpus.values(), desc="Looking for copies", unit=" documents")
    hashes = np.fromiter(
        (hash(normalised(text)) for text in texts), np.int64, len(corpus)
    )
    _, which, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    first: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    for (docid, text), often in zip(corpus.items(), counts[which], strict=True):
        if often > 1 and text.strip():
            original = first.setdefault(normalised(text), docid)
            if original != docid:
                found.append((docid, original))
    return found


def _unjudged(
    collection: Collection,
) -> Iterator[tuple[str, tuple[str, str], str, float, bool]]:
    """(docid, (split, qid), relevant docid, similarity, whether word for word)."""
    corpus, qrels = collection.corpus, collection.qrels
    # Relevant passages with the same words are searched as one: words → topic → docid.
    relevant: dict[str, dict[tuple[str, str], str]] = {}
    for split in qrels:
        for qid in qrels[split]:
            for docid in trec.positives(qrels[split], qid):
                if corpus.get(docid, "").strip():
                    topics = relevant.setdefault(normalised(corpus[docid]), {})
                    topics.setdefault((split, qid), docid)
    if not relevant:
        return
    texts = list(relevant)
    searched = NearDuplicates(texts)
    for docid, text in tqdm(
        corpus.items(), desc="Looking for near-duplicates", unit=" documents"
    ):
        for row, similar in searched.of(text):
            copy = normalised(text) == texts[row]
            for (split, qid), positive in relevant[texts[row]].items():
                if qrels[split][qid].get(docid, 0) < 1:
                    yield docid, (split, qid), positive, similar, copy


def _example(found: tuple[str, tuple]) -> str:
    docid, (positive, (split, qid), similar) = found
    return f"{docid} is like {positive} ({split} query {qid}): {similar:.2f}"
