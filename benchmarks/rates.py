"""What the stages cost on this machine, at a small scale: one table, to multiply.

    python benchmarks/rates.py --query_length 24 --passage_length 120

Every text is cut at these lengths, so that the encoder sees as many tokens as it ever
may. Texts are those of the built-in collection; vectors to search are random. Without
--encoder it is one with roberta-base's layers and random weights, whose steps take as
long as any other's; its vocabulary is smaller, which the optimizer alone would feel.
"""

import argparse
import json
import math
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaTokenizerFast

from dense_hn import bm25, cli, search, trec
from dense_hn.collections import pydoc
from dense_hn.collections.corpus import Corpus, write_corpus
from dense_hn.encode import encode_texts
from dense_hn.encoder import AnceModel, DenseEncoder
from dense_hn.encoder_settings import EncoderSettings
from dense_hn.train import commands
from dense_hn.train.trainer import log_of
from dense_hn.vectors import DOCIDS, MANIFEST, MATRIX

HITS = 200
# Of the built-in collection, so that an index is more than the start of Java.
COPIES = 8


def main() -> None:
    """Measure from the command line."""
    parser = cli.parser("benchmarks/rates.py", __doc__)
    parser.add_argument("--encoder", help="folder or hub name (default: random)")
    parser.add_argument("--query_length", type=int, default=24, help="default 24")
    parser.add_argument("--passage_length", type=int, default=120, help="default 120")
    parser.add_argument("--passages", type=int, default=48, help="to encode (48)")
    parser.add_argument("--batch", type=int, default=8, help="queries of STAR (8)")
    parser.add_argument("--queries", type=int, default=32, help="queries of ADORE (32)")
    parser.add_argument("--steps", type=int, default=2, help="steps timed (2)")
    parser.add_argument(
        "--vectors", type=int, nargs="+", default=[20_000, 100_000], help="searched"
    )
    args = parser.parse_args()
    collection = pydoc.read()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder), collection.corpus)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{torch.get_num_threads()} threads, {device}")
    width = max(len(what) for what, _ in rows)
    for what, value in rows:
        # Of a step of milliseconds, two decimals would be too few.
        decimals = max(2, 3 - math.floor(math.log10(value)))
        print(f"{what:{width}}  {value:>10,.{decimals}f}")


def measure(
    args: argparse.Namespace, work: Path, corpus: Corpus
) -> list[tuple[str, float]]:
    """(What, rate) of each stage, with files under ``work``."""
    rows: list[tuple[str, float]] = []
    base = work / "base"
    encoder = (
        DenseEncoder.load(args.encoder) if args.encoder else random_encoder(corpus)
    )
    encoder.settings.passage_length = args.passage_length
    encoder.save(base)
    encoder = DenseEncoder.load(str(base))
    words = " ".join(corpus.values()).split()
    passages = cut(words, args.passage_length, args.passages + 2 * args.batch)
    queries = cut(words, args.query_length, args.steps * max(args.batch, args.queries))

    start = time.perf_counter()
    encode_texts(encoder, list(passages.values())[: args.passages], "passage")
    seconds = time.perf_counter() - start
    what = f"passages of {args.passage_length} tokens encoded a second"
    rows.append((what, args.passages / seconds))

    star = {"corpus": work / "corpus.jsonl", "negatives": work / "run.txt"}
    star |= {"query_length": args.query_length, "passage_length": args.passage_length}
    write_corpus(star["corpus"], passages)
    docids = list(passages)
    negatives = {qid: {docid: 1.0 for docid in docids[1:]} for qid in queries}
    trec.write_run(star["negatives"], negatives, "made")
    rows.append(
        (
            f"seconds of a STAR step of {args.batch} queries",
            step(work, "star", queries, docids[0], args.batch, args.steps, **star),
        )
    )
    for number in args.vectors:
        write_vectors(work / "vectors", encoder, docids[0], number)
        adore = {"vectors": work / "vectors", "query_length": args.query_length}
        rows.append(
            (
                f"seconds of an ADORE step of {args.queries} queries, {number:,} vectors",
                step(
                    work, "adore", queries, docids[0], args.queries, args.steps, **adore
                ),
            )
        )
        matrix = torch.from_numpy(np.load(work / "vectors" / MATRIX))
        found = torch.randn(256, matrix.shape[1])
        seconds = timed(lambda m=matrix, q=found: search.top_k(q, m, HITS))
        what = f"queries a second, top {HITS} of {number:,} vectors"
        rows.append((what, len(found) / seconds))

    copies = {f"{n}-{d}": text for n in range(COPIES) for d, text in corpus.items()}
    seconds = timed(lambda: bm25.index(copies, work / "lucene"))
    what = f"documents a second indexed for BM25, {len(copies):,} of them"
    rows.append((what, len(copies) / seconds))
    topics = cut(words, 6, 256)
    start = time.perf_counter()
    trec.write_run(
        work / "hits.txt", bm25.search(work / "lucene", topics, HITS), "made"
    )
    seconds = time.perf_counter() - start
    rows.append((f"BM25 queries a second, top {HITS} of them", len(topics) / seconds))

    run, held = traced(lambda: trec.read_run(work / "hits.txt"))
    hits = sum(map(len, run.values()))
    rows.append(("bytes in memory for a hit of a run", held / hits))
    return rows


def random_encoder(corpus: Corpus) -> DenseEncoder:
    """An encoder with roberta-base's layers, its vocabulary learnt from the corpus."""
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(corpus.values(), vocab_size=5000, special_tokens=special)
    with tempfile.TemporaryDirectory() as folder:
        vocab, merges = bpe.save_model(folder)
        tokenizer = RobertaTokenizerFast(vocab=vocab, merges=merges)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=514,
        pad_token_id=tokenizer.pad_token_id,
    )
    return DenseEncoder(
        AnceModel(config), tokenizer, EncoderSettings(architecture="ance")
    )


def cut(words: list[str], length: int, number: int) -> dict[str, str]:
    """Texts of ``length`` words, which are as many tokens or more."""
    starts = range(0, len(words) - length, max(1, (len(words) - length) // number))
    texts = {f"t{n}": " ".join(words[s : s + length]) for n, s in enumerate(starts)}
    return dict(list(texts.items())[:number])


def written(work: Path, topics: dict[str, str]) -> Path:
    """The topics' file."""
    trec.write_topics(work / "topics.tsv", topics)
    return work / "topics.tsv"


def write_vectors(folder: Path, encoder: DenseEncoder, docid: str, number: int) -> None:
    """A vectors folder of random passages, ``docid`` the first."""
    folder.mkdir(exist_ok=True)
    np.save(folder / MATRIX, torch.randn(number, encoder.dimension).numpy())
    docids = [docid, *(f"random{n}" for n in range(1, number))]
    (folder / DOCIDS).write_text("".join(f"{docid}\n" for docid in docids))
    manifest = {"encoder": encoder.digest(), "corpus": ""}
    manifest |= {"passages": number, "dimension": encoder.dimension}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def step(
    work: Path,
    stage: str,
    queries: dict[str, str],
    docid: str,
    batch: int,
    steps: int,
    **settings: object,
) -> float:
    """Seconds of a training step, by the Trainer's own clock."""
    settings |= {"encoder": work / "base", "output_dir": work / "trained"}
    settings |= {"topics": written(work, queries), "qrels": work / "qrels.txt"}
    settings |= {"per_device_train_batch_size": batch, "max_steps": steps}
    trec.write_qrels(settings["qrels"], {qid: {docid: 1} for qid in queries})
    argv = [
        word for key, value in settings.items() for word in (f"--{key}", str(value))
    ]
    commands.train(stage, argv)
    last = log_of(work / "trained").read_text().splitlines()[-1]
    return json.loads(last)["train_runtime"] / steps


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def traced(read: Callable[[], dict]) -> tuple[dict, int]:
    """What it gives, and the bytes that Python holds for that."""
    tracemalloc.start()
    made = read()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return made, held


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    cli.run(main)
