"""Whether a query encoder and an index of others belong together, told from data.

Where the passages' texts are at hand, some are encoded anew and quantised as the index
quantises. The encoder that made the index gets the vectors that are there, so this tells
apart encoders, poolings, texts and orders, however coarse the codes are.

Without texts, the relevant documents of some training topics must stand above random
documents, and above their neighbours in the index: neighbours are often about the same
thing, so that documents which are one line off would stand above random ones as well.
This cannot tell poolings of one model apart, whose vectors resemble each other.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np

from dense_hn import DenseHNError, trec
from dense_hn.encode import encode_some, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.index import IndexVectors

log = logging.getLogger("dense_hn")

SEED = 0
PASSAGES, TOPICS = 64, 128
# The same encoder has 1 and 1 where the texts are the same, and less where the index was
# made from texts that were cut elsewhere or came without their titles. All-MiniLM's
# vectors of shell commands, as they are and in 16, 48 and 96 bytes, have .97 to 1 and .51
# to .62 against its first-token pooling, and .98 to 1 and .78 to .87 against the model 120
# training steps later.
OWN, COSINE = 0.95, 0.9
# Quantisation shortens vectors, 16 bytes of 384 dimensions to 0.82.
LENGTH = 2
P = 0.001


def require_same_vectors(
    vectors: IndexVectors,
    encoder: DenseEncoder,
    name: str,
    corpus: Mapping[str, str],
    corpus_path: str | Path,
) -> None:
    """Encode some passages anew, and compare with what the index holds of them.

    Args:
        vectors: of the index.
        encoder: that may have made them.
        name: its, for messages.
        corpus: docid to text.
        corpus_path: where it is from, for messages.

    Raises:
        DenseHNError: a docid of the index is not in the corpus; vectors of another
            length; too few are nearest to their own vector, or not near enough.
    """
    missing = [docid for docid in vectors.docids if docid not in corpus]
    if missing:
        raise DenseHNError(
            f"{vectors.path}: docid {missing[0]!r} is not in {corpus_path}, "
            f"{len(missing)} of {len(vectors.docids)} are not; name the corpus that "
            "the index was made of"
        )
    rows = _sample(range(len(vectors.docids)), PASSAGES)
    docids = [vectors.docids[row] for row in rows]
    fresh = encode_some(encoder, corpus, docids).matrix.numpy()
    stored = vectors.matrix[rows].numpy()
    ratio = float(np.median(_lengths(fresh) / _lengths(stored)))
    if not 1 / LENGTH <= ratio <= LENGTH:
        raise DenseHNError(
            f"{vectors.path}: {name} makes vectors {ratio:.2g} times as long as those "
            "in the index; name the encoder that made it, with the same l2_norm"
        )
    quantised = vectors.quantise(fresh)
    cosines = _unit(quantised) @ _unit(stored).T
    # Texts that are the same, or share a code, are equally near.
    own = float((cosines.diagonal() >= cosines.max(axis=1) - 1e-5).mean())
    median = float(np.median(cosines.diagonal()))
    seen = (
        f"of {len(rows)} passages that {name} encoded anew, {own:.0%} are nearest to "
        f"their own vector, with a median cosine of {median:.3f}"
    )
    if own < OWN or median < COSINE:
        raise DenseHNError(
            f"{vectors.path}: {seen}, where {OWN:.0%} and {COSINE} are the least: "
            "another encoder (pooling, prefix, document_weight) made this index, docid is in another "
            f"order, or {corpus_path} has other texts; name what it was made with, or, "
            "if its passages have an encoder of their own, leave out --corpus"
        )
    log.info("%s: %s", vectors.path, seen)


def require_relevant_above(
    vectors: IndexVectors,
    encoder: DenseEncoder,
    name: str,
    topics: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
) -> None:
    """Compare relevant documents of some topics with others, by one-sided sign tests.

    Args:
        vectors: of the index.
        encoder: of queries that may belong to them.
        name: its, for messages.
        topics: qid to text.
        qrels: judgements, whose relevant documents are all in the index.

    Raises:
        DenseHNError: relevant documents do not stand above random ones, or not above
            those before or after them in the index, at p < .001.
    """
    # A second, and 20 MB of a training's memory.
    from scipy.stats import binomtest

    qids = _sample(list(topics), TOPICS)
    queries = encode_texts(encoder, [topics[qid] for qid in qids], "query")
    positives = [
        vectors.docids.rows(trec.positives(qrels, qid)).tolist() for qid in qids
    ]
    first = [rows[0] for rows in positives]
    number = len(vectors.docids)
    random = Random(SEED)
    rivals = {
        "random documents": [random.randrange(number) for _ in first],
        "the documents before them in the index": [(n - 1) % number for n in first],
        "the documents after them": [(n + 1) % number for n in first],
    }
    own = (queries * vectors.matrix[first]).sum(dim=1)
    seen, refused = [], False
    for what, others in rivals.items():
        apart = own - (queries * vectors.matrix[others]).sum(dim=1)
        for place, other in enumerate(others):
            if other in positives[place]:
                apart[place] = 0
        above, below = int((apart > 0).sum()), int((apart < 0).sum())
        seen.append(f"{above} of {above + below} stand above {what}")
        refused |= (
            not above or binomtest(above, above + below, 0.5, "greater").pvalue >= P
        )
    seen = f"of the relevant documents by {name}, {', '.join(seen)}"
    if refused:
        raise DenseHNError(
            f"{vectors.path}: {seen}, which chance gives as well (sign test, p < {P}): "
            "another encoder made this index, docid is in another order, or there are "
            "too few topics to tell; name what it was made with, or give its --corpus"
        )
    log.info("%s: %s", vectors.path, seen)


def _sample(items: Sequence, number: int) -> list:
    return Random(SEED).sample(items, min(number, len(items)))


def _lengths(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(_lengths(vectors), 1e-12)[:, None]
