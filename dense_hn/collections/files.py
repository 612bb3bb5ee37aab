"""Files of one's own: a corpus, and topics and qrels for each split.

``{corpus: PATH, SPLIT: [TOPICS, QRELS], …}``, or ``SPLIT: TOPICS`` for one that is not
judged, in any of the formats of dense_hn.collections.corpus and dense_hn.trec. TOPICS and
QRELS may be ``pyserini:NAME``; see dense_hn.collections.named.
"""

from typing import Any

from dense_hn import DenseHNError, trec
from dense_hn.collections import by_split, named
from dense_hn.collections.collection import Collection
from dense_hn.collections.corpus import corpus_files, read_corpus
from dense_hn.files import digest, require_file

FORM = "{corpus: PATH, SPLIT: [TOPICS, QRELS] or TOPICS, …}"


def read(value: Any) -> Collection:
    """Read the files; judged topics may lack a text.

    Args:
        value: as the module says.

    Raises:
        DenseHNError: a value of another form, a file that is missing or cannot be read, a
            judgement of a document that is not in the corpus.
    """
    corpus_path, given = _parse(value)
    read = Collection(corpus={}, topics={}, qrels={})
    for split, (topics, *qrels) in given.items():
        named_topics = topics.startswith(named.PREFIX)
        read.topics[split] = (named if named_topics else trec).read_topics(topics)
        for path in qrels:
            named_qrels = path.startswith(named.PREFIX)
            read.qrels[split] = (named if named_qrels else trec).read_qrels(path)
    read.corpus = read_corpus(corpus_path)
    for split, qrels in read.qrels.items():
        trec.require_known(qrels, read.corpus, given[split][1], corpus_path)
    return read


def splits(value: Any) -> dict[str, bool]:
    """Split to whether it is judged."""
    return {split: len(paths) > 1 for split, paths in _parse(value)[1].items()}


def digests(value: Any) -> list[str]:
    """Digests of the files; Pyserini's own are known by their names."""
    corpus_path, given = _parse(value)
    keys = [digest(path) for path in corpus_files(corpus_path)]
    for split, paths in given.items():
        keys.append(split)
        for path in paths:
            own = not path.startswith(named.PREFIX)
            keys.append(digest(require_file(path, split)) if own else path)
    return keys


def _parse(value: Any) -> tuple[str, dict[str, list[str]]]:
    """The corpus, and topics and qrels, or topics alone, of each split."""
    corpus, given = by_split.parse(value, "files", FORM)
    for split, paths in given.items():
        given[split] = paths if isinstance(paths, list) else [paths]
        if not 1 <= len(given[split]) <= 2 or not all(
            isinstance(p, str) for p in given[split]
        ):
            raise DenseHNError(f"files: {split}: expected {FORM}, got {paths!r}")
    return corpus, given
