"""Whether the ids of topics, qrels, runs and corpus are ids of the same things."""

from collections.abc import Iterator

from dense_hn import trec
from dense_hn.check.report import ERROR, WARNING, Finding
from dense_hn.collections.collection import TRAIN, Collection
from dense_hn.maxp import passage


def of_collection(collection: Collection, unusable: str) -> Iterator[Finding]:
    """Ids of topics and qrels.

    Args:
        collection: to check.
        unusable: severity of training topics without a relevant document.
    """
    trained = [TRAIN] if TRAIN in collection.qrels else []
    yield Finding.of(
        "no training",
        WARNING,
        [] if trained else [", ".join(collection.topics)],
        "collection without judged training topics, which can be evaluated on alone",
        lambda splits: f"there are {splits}",
    )
    for split, qrels in collection.qrels.items():
        topics = collection.topics[split]
        yield Finding.of(
            f"judged topics without text: {split}",
            ERROR,
            [qid for qid in qrels if qid not in topics],
            f"judged {split} topics that are no topics",
            advice="add their texts, or remove their judgements",
        )
        unknown = _unknown(qrels, collection)
        yield Finding.of(
            f"judged documents not in the corpus: {split}",
            ERROR,
            unknown,
            f"{split} judgements of documents that are not in the corpus",
            _document,
            "use the corpus that they were made for, or remove them",
        )
        yield Finding.of(
            f"topics without a relevant document: {split}",
            unusable if split == TRAIN else WARNING,
            [qid for qid in topics if not trec.positives(qrels, qid)],
            f"{split} topics without a relevant document",
            advice="python -m dense_hn.collections makes a folder of it without these",
        )
    changed = [
        qid
        for topics in collection.topics.values()
        for qid in topics
        if trec.renumbered(qid)
    ]
    yield Finding.of(
        "leading zeros",
        WARNING,
        changed,
        "topic ids that Pyserini turns into other numbers",
        advice="rename them in topics, qrels and runs",
    )


def of_run(collection: Collection, name: str, run: trec.Run) -> Iterator[Finding]:
    """Ids of a run, and which splits it is for; of passages, it may list their documents.

    A run is for every split that it has topics of; one for the training topics must
    have them all, or some are trained without its negatives.

    Args:
        collection: what the run should be of.
        name: the run's, for the report.
        run: its hits.
    """
    yield Finding.of(
        f"documents not in the corpus: {name}",
        ERROR,
        [
            (qid, docid)
            for qid, docid in _unknown(run, collection)
            if passage(docid, 0) not in collection.corpus
        ],
        f"hits in {name} that are not in the corpus",
        _document,
        "use the corpus that the run was made for",
    )
    known = {qid for topics in collection.topics.values() for qid in topics}
    unknown = [qid for qid in run if qid not in known]
    yield Finding.of(
        f"unknown topics: {name}",
        ERROR if len(unknown) == len(run) else WARNING,
        unknown,
        f"of {len(run)} topics in {name} are no topics of the collection",
        advice="use a run of these topics",
    )
    for split, topics in collection.topics.items():
        missing = [qid for qid in topics if qid not in run]
        if len(missing) < len(topics):
            yield Finding.of(
                f"topics not covered: {name}: {split}",
                WARNING,
                missing,
                f"of {len(topics)} {split} topics have no hits in {name}",
                advice="make the run for all of them" if split == TRAIN else "",
            )


def _unknown(documents: trec.Qrels | trec.Run, collection: Collection) -> list:
    """(qid, docid) of what is not in the corpus."""
    corpus = collection.corpus
    return [(q, d) for q, row in documents.items() for d in row if d not in corpus]


def _document(pair: tuple[str, str]) -> str:
    qid, docid = pair
    return f"{docid} (query {qid})"
