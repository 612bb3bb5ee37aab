"""BM25 by Pyserini's Lucene.

python -m dense_hn.bm25 index --corpus corpus.jsonl --output indexes/bm25
python -m dense_hn.bm25 search --index indexes/bm25 --topics topics.tsv --output run
"""

import argparse
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from dense_hn import (
    DenseHNError,
    anserini,
    cli,
    costs,
    java,
    maxp,
    provenance,
    trec,
)
from dense_hn.collections.corpus import corpus_digest, read_corpus, write_corpus
from dense_hn.files import digest, require_folder, whole_folder
from dense_hn.ids import require_from_one
from dense_hn.reading import read_object

log = logging.getLogger("dense_hn")

K1, B = 0.9, 0.4
# What an index was made from; Lucene leaves it alone.
MANIFEST = "manifest.json"
# Topics searched together; Anserini keeps the stored text of all their hits in memory.
BATCH = 32


def require_settings(k1: float, b: float) -> None:
    """Check BM25's two numbers, which Lucene refuses only when it searches.

    Raises:
        DenseHNError: k1 is below 0, or b is not from 0 to 1.
    """
    if not 0 <= k1 < math.inf or not 0 <= b <= 1:
        raise DenseHNError(f"bm25: k1 is {k1} and b {b}; from 0, and from 0 to 1")


def index(corpus: Mapping[str, str], folder: str | Path) -> None:
    """Index a corpus (docid → contents) with Anserini's defaults, as Pyserini does.

    Raises:
        DenseHNError: no JDK; the indexer failed, or indexed another number of documents
            than the corpus has (it ends with status 0 all the same).
    """
    java.java_home()
    with whole_folder(folder, *anserini.HOLDS, also=anserini.ALSO) as partial:
        source = partial / "corpus"
        write_corpus(source / "corpus.jsonl", corpus)
        command = ["index.lucene", "--collection", "JsonCollection"]
        command += ["--input", str(source)]
        command += ["--generator", "DefaultLuceneDocumentGenerator"]
        command += ["--index", str(partial), "--threads", str(os.cpu_count())]
        command += ["--storePositions", "--storeDocvectors", "--storeRaw"]
        anserini.index(command, partial, folder, len(corpus), "Indexing for BM25")
        (source / "corpus.jsonl").unlink()
        source.rmdir()
        manifest = {"corpus": corpus_digest(corpus)}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def search(
    folder: str | Path,
    topics: Mapping[str, str],
    hits: int,
    k1: float = K1,
    b: float = B,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Search a Lucene index with BM25, one topic after another.

    Args:
        folder: Lucene index made by :func:`index` or by Pyserini.
        topics: qid to text.
        hits: documents per topic.
        k1: BM25's term saturation.
        b: BM25's length normalisation.

    Returns:
        (qid, {docid: score}) in the order of the topics; topics without a hit are left
        out, and their number logged.

    Raises:
        DenseHNError: at the end, when no topic has a hit.
    """
    searcher = _searcher(require_folder(folder, "Lucene index"))
    searcher.set_bm25(k1, b)
    return _search(searcher, topics, hits)


def _search(
    searcher, topics: Mapping[str, str], hits: int
) -> Iterator[tuple[str, dict[str, float]]]:
    from jnius import autoclass

    array_list = autoclass("java.util.ArrayList")
    without = 0
    qids = list(topics)
    with tqdm(total=len(qids), desc="Searching BM25", unit=" queries") as progress:
        for start in range(0, len(qids), BATCH):
            batch = qids[start : start + BATCH]
            texts, ids = array_list(), array_list()
            for qid in batch:
                texts.add(topics[qid])
                ids.add(qid)
            with costs.part("search"):
                found = searcher.batch_search(texts, ids, hits, os.cpu_count())
            for qid in batch:
                scored = {hit.docid: hit.score for hit in found.get(qid)}
                if scored:
                    yield qid, scored
                else:
                    without += 1
            progress.update(len(batch))
    if without == len(qids):
        raise DenseHNError(
            f"BM25: none of {without} topics has a hit; are they in the index's language?"
        )
    if without:
        log.warning("BM25: %d topics have no hit", without)


def mine(
    folder: str | Path,
    topics_path: str | Path,
    hits: int,
    output: str | Path,
    tag: str,
    k1: float = K1,
    b: float = B,
    max_passage: bool = False,
) -> None:
    """Write :func:`search`'s run, and what it was made from (``OUTPUT.json``).

    Arguments as in :func:`search`; ``topics_path`` is a TSV file, ``tag`` the run's. With
    ``max_passage`` passages were indexed, and the run lists their documents
    (dense_hn.maxp).
    Nothing is done when it was made from the same corpus, topics and settings.

    Raises:
        DenseHNError: no Lucene index there, topics that cannot be read, settings that
            BM25 does not have; a file in the run's place that is none.
    """
    require_settings(k1, b)
    require_from_one(hits, "hits")
    trec.require_no_other(output)
    folder = require_folder(folder, "Lucene index")
    if not any(folder.glob(anserini.HOLDS[0])):
        raise DenseHNError(
            f"{folder}: no Lucene index (no {anserini.HOLDS[0]} in it); `python -m "
            "dense_hn.bm25 index` makes one"
        )
    topics = trec.read_topics(topics_path)
    made_from = {"k1": k1, "b": b, "topics": digest(topics_path), "hits": hits}
    if max_passage:
        made_from["max_passage"] = True
    manifest = folder / MANIFEST
    if manifest.is_file():
        made_from |= read_object(manifest, "manifest of the index")
        if provenance.is_made_from(output, made_from):
            log.info("%s is there, made from the same index and topics", output)
            return
    with costs.Costs() as spent:
        found = search(folder, topics, hits, k1, b)
        if max_passage:
            found = maxp.by_document(found)
        trec.write_run(output, found, tag)
    provenance.record(output, made_from, spent.facts())


def _searcher(folder: Path):
    """Anserini's SimpleSearcher; lighter than Pyserini's, which imports torch."""
    java.start_jvm(anserini.HEAP)
    from jnius import autoclass

    # Absolute: Java keeps the working directory that it was started in.
    return autoclass("io.anserini.search.SimpleSearcher")(str(folder.resolve()))


def main() -> None:
    """Index or search from the command line."""
    parser = argparse.ArgumentParser(prog="dense_hn.bm25", description="BM25 by Lucene")
    commands = parser.add_subparsers(dest="command", required=True)
    indexing = commands.add_parser("index", help="index a corpus")
    indexing.add_argument("--corpus", required=True, help="JSONL, TSV or a folder")
    indexing.add_argument("--output", required=True, help="index folder to write")
    searching = commands.add_parser("search", help="search topics, write a TREC run")
    searching.add_argument("--index", required=True, help="Lucene index folder")
    searching.add_argument("--topics", required=True, help="TSV, TREC or JSON")
    searching.add_argument("--hits", type=int, default=1000, help="default 1000")
    searching.add_argument("--k1", type=float, default=K1, help=f"default {K1}")
    searching.add_argument("--b", type=float, default=B, help=f"default {B}")
    searching.add_argument(
        "--max_passage",
        action="store_true",
        help="passages D#0, D#1, … were indexed: list documents, each with its best "
        "passage's score",
    )
    searching.add_argument("--output", required=True, help="run file to write")
    args = parser.parse_args()
    if args.command == "index":
        index(read_corpus(args.corpus), args.output)
    else:
        settings = args.k1, args.b, args.max_passage
        mine(args.index, args.topics, args.hits, args.output, "BM25", *settings)


if __name__ == "__main__":
    cli.run(main)
