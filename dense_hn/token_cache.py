"""Token ids of a corpus, made once and kept in the cache (dense_hn.cache)."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from dense_hn import cache, columns
from dense_hn.collections.corpus import Corpus
from dense_hn.columns import Tokens
from dense_hn.encoder import DenseEncoder, Kind

FILE = "tokens.arrow"


def tokens_of(
    encoder: DenseEncoder, corpus: Corpus, kind: Kind, length: int | None = None
) -> Tokens:
    """Token ids of every text, special tokens included, in the order of the corpus.

    Args:
        encoder: whose tokens.
        corpus: documents, or topics (Corpus.of).
        kind: which prefix and length apply.
        length: longest text in tokens, instead of the encoder's own.
    """
    small = len(encoder.tokenizer) <= 2**16
    values = pa.uint16() if small else pa.uint32()

    def make(folder: Path) -> None:
        def pieces() -> Iterator[tuple]:
            label = {"query": "Tokenising queries", "passage": "Tokenising passages"}
            with tqdm(total=len(corpus), desc=label[kind], unit=f" {kind}") as progress:
                for texts in columns.cut(corpus.texts):
                    yield (encoder.tokenize(texts, kind, length),)
                    progress.update(len(texts))

        schema = pa.schema({"tokens": pa.large_list(values)})
        columns.write(folder / FILE, schema, pieces())

    made_from = [corpus.digest, *encoder.tokenized_by(kind, length)]
    kept = cache.folder("tokens", made_from, make)
    return Tokens(columns.read(kept / FILE)["tokens"])
