"""A collection in figures: what it is known by, how much of it there is, how long."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from dense_hn import maxp
from dense_hn.collections.collection import Collection
from dense_hn.collections.corpus import corpus_digest
from dense_hn.encoder import DenseEncoder, Kind

# Texts that are tokenised at a time; longer ones count as this long, in tokens.
BATCH = 64
LONGEST = 8192


def figures(
    collection: Collection, encoder: DenseEncoder | None
) -> dict[str, dict[str, Any]]:
    """By ``corpus`` and split: digest, number, lengths in words and in tokens, qrels.

    The digests are of ids with texts or judgements, in their order, however the files
    are laid out: two collections with the same ones are the same.

    Args:
        collection: of which.
        encoder: whose tokens are counted, and cut where; None: no tokens. Where it adds
            documents' vectors to their passages', ``documents`` are looked at, too.
    """
    corpus = collection.corpus
    parts = {"corpus": _texts(corpus, "passage", encoder)}
    if encoder is not None and encoder.settings.document_weight:
        whole = maxp.documents(corpus)
        parts["documents"] = _texts(whole, "passage", encoder, "document_length")
    for split, topics in collection.topics.items():
        parts[split] = _texts(topics, "query", encoder)
        if split in collection.qrels:
            parts[split] |= _judgements(collection.qrels[split])
    return parts


def _texts(
    texts: Mapping[str, str],
    kind: Kind,
    encoder: DenseEncoder | None,
    length: str = "",
) -> dict[str, Any]:
    words = [len(text.split()) for text in texts.values()]
    found = {"texts": len(texts), "sha256": corpus_digest(texts)}
    found["words"] = _lengths(np.array(words))
    if texts and encoder is not None:
        tokens = _tokens(list(texts.values()), kind, encoder)
        length = length or f"{kind}_length"
        limit = getattr(encoder.settings, length)
        over = round(float((tokens > limit).mean()), 4)
        found["tokens"] = _lengths(tokens) | {f"share over {length} {limit}": over}
    return found


def _tokens(texts: list[str], kind: Kind, encoder: DenseEncoder) -> np.ndarray:
    """[N] tokens of each text, prefix and special tokens included."""
    starts = range(0, len(texts), BATCH)
    lengths = [
        len(ids)
        for start in tqdm(starts, desc=f"Tokenising a {kind}", unit=" batches")
        for ids in encoder.tokenize(texts[start : start + BATCH], kind, LONGEST)
    ]
    return np.array(lengths)


def _judgements(qrels: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    judged = [len(documents) for documents in qrels.values()]
    grades = Counter(g for documents in qrels.values() for g in documents.values())
    lines = {qid: json.dumps(documents) for qid, documents in qrels.items()}
    return {
        "qrels sha256": corpus_digest(lines),
        "judgements a topic": _lengths(np.array(judged)),
        "judgements of grade": {str(grade): grades[grade] for grade in sorted(grades)},
    }


def _lengths(values: np.ndarray) -> dict[str, float]:
    """Mean and quantiles."""
    if not len(values):
        return {}
    return {
        "mean": round(float(values.mean()), 1),
        "median": float(np.median(values)),
        "99%": round(float(np.quantile(values, 0.99)), 1),
        "most": float(values.max()),
    }
