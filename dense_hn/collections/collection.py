"""A collection in memory, what of it can be used, and the folder it is kept in.

The folder holds ``corpus/corpus.jsonl`` (Pyserini's JsonCollection), and for every split
``topics.SPLIT.tsv``, where it is judged ``qrels.SPLIT.txt``, and the runs that its source
brings, ``run.NAME.SPLIT.txt``.
"""

import logging
import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dense_hn import DenseHNError, trec
from dense_hn.collections.corpus import read_corpus, write_corpus
from dense_hn.files import require_file, whole_folder

log = logging.getLogger("dense_hn")

TRAIN, DEV, TEST = "train", "dev", "test"
CORPUS = "corpus/corpus.jsonl"
# What a collection folder holds.
HOLDS = ("corpus", "topics.*.tsv", "qrels.*.txt", "run.*.txt")
HELD_OUT = 0.1
SEED = 42


@dataclass(kw_only=True, slots=True)
class Collection:
    """Corpus, topics and qrels by original ids."""

    # docid → text.
    corpus: Mapping[str, str]
    # By split: train, dev, test or any other name; a split without qrels is not judged.
    topics: dict[str, trec.Topics]
    qrels: dict[str, trec.Qrels]
    # By name and split: runs that the source brings, such as hard negatives.
    runs: dict[str, dict[str, trec.Run]] = field(default_factory=dict)
    # What its source holds and it does not, and how often.
    left_out: Counter[str] = field(default_factory=Counter)
    # How many documents start with the title that their source gives them; None where
    # it does not tell.
    titled: int | None = None


def corpus_file(folder: str | Path) -> Path:
    """A collection folder's corpus."""
    return Path(folder) / CORPUS


def topics_file(folder: str | Path, split: str) -> Path:
    """A collection folder's topics of a split."""
    return Path(folder) / f"topics.{split}.tsv"


def qrels_file(folder: str | Path, split: str) -> Path:
    """A collection folder's qrels of a split."""
    return Path(folder) / f"qrels.{split}.txt"


def run_file(folder: str | Path, name: str, split: str) -> Path:
    """A run for a split's topics that a collection folder brings."""
    return Path(folder) / f"run.{name}.{split}.txt"


def read(folder: str | Path) -> Collection:
    """Read a collection folder.

    Raises:
        DenseHNError: a file that is missing or cannot be read; no topics in it.
    """
    there = splits(folder)
    runs: dict[str, dict[str, trec.Run]] = {}
    for path in sorted(Path(folder).iterdir()):
        named = re.fullmatch(r"run\.([^.]+)\.(.+)\.txt", path.name)
        if named and named[2] in there:
            runs.setdefault(named[1], {})[named[2]] = trec.read_run(path)
    return Collection(
        corpus=read_corpus(corpus_file(folder)),
        topics={s: trec.read_topics(topics_file(folder, s)) for s in there},
        qrels={
            split: trec.read_qrels(qrels_file(folder, split))
            for split, judged in there.items()
            if judged
        },
        runs=runs,
    )


def splits(folder: str | Path) -> dict[str, bool]:
    """Split to whether it is judged, of a collection folder, by names.

    Raises:
        DenseHNError: no corpus or no topics in it.
    """
    require_file(corpus_file(folder), "the collection's corpus")
    names = [re.fullmatch(r"topics\.(.+)\.tsv", p.name) for p in Path(folder).iterdir()]
    found = sorted(name[1] for name in names if name)
    if not found:
        raise DenseHNError(f"{folder}: no topics.SPLIT.tsv in it")
    return {split: qrels_file(folder, split).exists() for split in found}


def write(collection: Collection, folder: str | Path) -> None:
    """Write a collection folder."""
    with whole_folder(folder, CORPUS, also=HOLDS) as partial:
        write_corpus(corpus_file(partial), collection.corpus)
        for split, topics in collection.topics.items():
            trec.write_topics(topics_file(partial, split), topics)
        for split, qrels in collection.qrels.items():
            trec.write_qrels(qrels_file(partial, split), qrels)
        for name, runs in collection.runs.items():
            for split, run in runs.items():
                topics = collection.topics[split]
                hits = {qid: run[qid] for qid in topics if qid in run}
                trec.write_run(run_file(partial, name, split), hits, name)


def prepare(collection: Collection) -> None:
    """Leave out what cannot be trained on or evaluated with, and count it.

    Documents without any text and judgements of them, judged topics without text or
    without a relevant document, topics of a judged split that are not judged. Without
    a dev split, a tenth of the training topics become one. Training topics that stand,
    word for word whatever their case, in another split are left out, before that and
    after it.

    Raises:
        DenseHNError: nothing of a judged split is left.
    """
    corpus, left_out = collection.corpus, collection.left_out
    empty = {docid for docid, text in corpus.items() if not text.strip()}
    if empty:
        collection.corpus = {d: text for d, text in corpus.items() if d not in empty}
    left_out["documents without text"] += len(empty)
    for split, qrels in collection.qrels.items():
        topics = collection.topics[split]
        for judged in qrels.values():
            for docid in empty.intersection(judged):
                del judged[docid]
                left_out["judgements of documents without text"] += 1
        usable = [
            qid
            for qid in qrels
            if topics.get(qid, "").strip() and trec.positives(qrels, qid)
        ]
        if not usable:
            raise DenseHNError(
                f"{split}: of {len(qrels)} judged topics none has both a text and a "
                "relevant document; are topics and qrels of the same queries?"
            )
        what = f"{split} topics without text or without a relevant document"
        left_out[what] += len(qrels) - len(usable)
        left_out[f"{split} topics that are not judged"] += len(topics.keys() - qrels)
        collection.qrels[split] = {qid: qrels[qid] for qid in usable}
        collection.topics[split] = {qid: topics[qid] for qid in usable}
    # Before a dev split is made of them: it is to be of no other split's topics, either.
    _separate(collection)
    if collection.qrels.get(TRAIN) and DEV not in collection.topics:
        _hold_out(collection)
    _separate(collection)
    if TRAIN in collection.qrels and not collection.qrels[TRAIN]:
        raise DenseHNError(
            f"{TRAIN}: every topic stands in another split, too, or became a dev topic, so that "
            "there is nothing to train on; is it a copy of another split?"
        )


def _hold_out(collection: Collection) -> None:
    """Take a dev split out of the training topics."""
    topics, qrels = collection.topics[TRAIN], collection.qrels[TRAIN]
    number = max(1, int(HELD_OUT * len(qrels)))
    chosen = random.Random(SEED).sample(sorted(qrels), number)
    log.info("no dev split: %d of %d training topics become one", number, len(topics))
    collection.topics[DEV] = {qid: topics.pop(qid) for qid in chosen}
    collection.qrels[DEV] = {qid: qrels.pop(qid) for qid in chosen}


def _separate(collection: Collection) -> None:
    """Take training topics out that stand in another split."""
    elsewhere = {
        normalised(text)
        for split, topics in collection.topics.items()
        for text in topics.values()
        if split != TRAIN
    }
    for qid, text in list(collection.topics.get(TRAIN, {}).items()):
        if normalised(text) in elsewhere:
            del collection.topics[TRAIN][qid]
            collection.qrels.get(TRAIN, {}).pop(qid, None)
            collection.left_out["training topics that are evaluated on"] += 1


def normalised(text: str) -> str:
    """A text's words, whatever their case and the white space between them."""
    return " ".join(text.casefold().split())


def tell(collection: Collection, source: str) -> None:
    """Log what is in a collection and what was left out of it."""
    topics = collection.topics.items()
    log.info(
        "%s: %d documents; %s; left out: %s",
        source,
        len(collection.corpus),
        ", ".join(f"{len(texts)} {split} topics" for split, texts in topics),
        ", ".join(f"{n} {what}" for what, n in collection.left_out.items() if n)
        or "nothing",
    )
