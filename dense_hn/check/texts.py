"""What the texts themselves tell: missing ones, titles, queries cut out of passages."""

from collections.abc import Iterator

from dense_hn import trec
from dense_hn.check.report import INFORMATION, WARNING, Finding
from dense_hn.collections.collection import Collection, normalised

# Longest first line, in words, that passes for a title.
TITLE = 20
# Share of topics that are copied from their passages from which on it is a warning.
MANY_COPIED = 0.1


def findings(collection: Collection) -> Iterator[Finding]:
    """Missing texts, titles, and topics that stand in their relevant passages."""
    corpus = collection.corpus
    yield Finding.of(
        "documents without text",
        INFORMATION,
        [docid for docid, text in corpus.items() if not text.strip()],
        "documents without text",
    )
    for split, topics in collection.topics.items():
        yield Finding.of(
            f"topics without text: {split}",
            INFORMATION,
            [qid for qid, text in topics.items() if not text.strip()],
            f"{split} topics without text",
        )
    yield _titles(collection)
    for split in collection.qrels:
        yield _copied(collection, split)


def _titles(collection: Collection) -> Finding:
    """A corpus with titles and one without are two, whose results differ."""
    corpus, number = collection.corpus, collection.titled
    what = "start with the title that their source gives them"
    if number is None:
        number = sum(map(_seems_titled, corpus.values()))
        what = f"seem to start with a title (a line of up to {TITLE} words)"
    return Finding(
        name="titles",
        severity=INFORMATION,
        count=number,
        what=f"of {len(corpus)} passages {what}",
    )


def _seems_titled(text: str) -> bool:
    title, _, rest = text.strip().partition("\n")
    return bool(rest) and len(title.split()) <= TITLE


def _copied(collection: Collection, split: str) -> Finding:
    """Queries cut out of their passages teach, and measure, the finding of copies."""
    corpus, qrels = collection.corpus, collection.qrels[split]
    found: list[tuple[str, str]] = []
    for qid, text in collection.topics[split].items():
        # White space around both: whole words, with the punctuation beside them.
        words = f" {normalised(text)} "
        if words.strip():
            for docid in trec.positives(qrels, qid):
                if words in f" {normalised(corpus.get(docid, ''))} ":
                    found.append((qid, docid))
                    break
    return Finding.of(
        f"topics copied from their passage: {split}",
        WARNING if len(found) > MANY_COPIED * len(qrels) else INFORMATION,
        found,
        f"of {len(qrels)} judged {split} topics stand word for word in a passage that is "
        "relevant to them",
        lambda pair: f"{pair[0]} in {pair[1]}",
    )
