"""A model's own top-k for topics, as a TREC run.

    python -m dense_hn.mine --encoder DIR --vectors DIR --topics topics.tsv --output run

With ``--index`` the passages are those of a faiss folder, searched exactly.
The same run serves as static hard negatives for training topics (known positives are
removed when it is read) and as the result to be evaluated for test topics. Scores are
the model's own: plain dot products of its vectors, which are normalised only where the
encoder itself normalises them. With ``--qrels`` the run is for training alone: it lists
all relevant documents, so that its recall means nothing. A run that is there, made from
the same weights, passages and topics, is left as it is.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from dense_hn import cli, provenance, search, trec
from dense_hn.encode import Vectors, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.files import digest
from dense_hn.index import IndexVectors, read_index

log = logging.getLogger("dense_hn")

BATCH = 256


def retrieve(
    encoder: DenseEncoder,
    vectors: Vectors,
    topics: Mapping[str, str],
    hits: int,
    qrels: Mapping[str, Mapping[str, int]] | None = None,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Exact top ``hits`` of the whole corpus for every topic, one topic after another.

    Args:
        encoder: query encoder that belongs to the vectors.
        vectors: the corpus.
        topics: qid to text.
        hits: documents per topic.
        qrels: judgements whose relevant documents are listed, too, when they are not
            among the hits: they stand behind them with their score, which filters
            compare negatives with.

    Returns:
        (qid, {docid: score}) in the order of the topics.

    Raises:
        DenseHNError: the vectors were made by another encoder.
    """
    vectors.require_made_by(encoder, "this one")
    return _retrieve(encoder, vectors, topics, hits, qrels or {})


def _retrieve(
    encoder: DenseEncoder,
    vectors: Vectors,
    topics: Mapping[str, str],
    hits: int,
    qrels: Mapping[str, Mapping[str, int]],
) -> Iterator[tuple[str, dict[str, float]]]:
    queries = encode_texts(encoder, list(topics.values()), "query").to(encoder.device)
    matrix = vectors.matrix.to(encoder.device)
    row = {docid: n for n, docid in enumerate(vectors.docids)} if qrels else {}
    qids = list(topics)
    with tqdm(total=len(qids), desc="Searching vectors", unit=" queries") as progress:
        for start in range(0, len(qids), BATCH):
            batch = qids[start : start + BATCH]
            found = search.top_k(queries[start : start + BATCH], matrix, hits)
            scores, rows = (tensor.tolist() for tensor in found)
            for place, qid in enumerate(batch):
                docids = [vectors.docids[n] for n in rows[place]]
                listed = dict(zip(docids, scores[place], strict=True))
                missing = [d for d in trec.positives(qrels, qid) if d not in listed]
                if missing:
                    behind = matrix[[row[docid] for docid in missing]]
                    behind = (behind @ queries[start + place]).tolist()
                    listed |= dict(zip(missing, behind, strict=True))
                yield qid, listed
            progress.update(len(batch))


def mine(
    encoder: DenseEncoder,
    vectors: Vectors,
    topics_path: str | Path,
    hits: int,
    output: str | Path,
    tag: str,
    qrels_path: str | Path | None = None,
) -> None:
    """Write :func:`retrieve`'s run, and what it was made from (``OUTPUT.json``).

    Nothing is done when ``output`` was made from the same weights, tokenizer, lengths,
    corpus, index, topics and qrels.

    Raises:
        DenseHNError: a file that cannot be read, qrels with a docid without a vector or
            for other topics.
    """
    topics, qrels = trec.read_topics(topics_path), None
    if qrels_path:
        qrels = trec.read_qrels(qrels_path)
        trec.require_known(qrels, set(vectors.docids), qrels_path, vectors.path)
        judged = {qid for qid in topics if trec.positives(qrels, qid)}
        what = "relevant document"
        trec.tell_uncovered(topics, judged, topics_path, qrels_path, what)
    made_from = {
        "query_encoder": encoder.digest("query"),
        "passage_encoder": vectors.encoder,
        "corpus": vectors.corpus,
        "index": vectors.files if isinstance(vectors, IndexVectors) else [],
        "topics": digest(topics_path),
        "qrels": qrels_path and digest(qrels_path),
        "hits": hits,
        "tag": tag,
    }
    if provenance.is_made_from(output, made_from):
        log.info("%s is there, made from the same encoder and topics", output)
        return
    found = retrieve(encoder, vectors, topics, hits, qrels)
    if not encoder.searches(vectors.encoder):
        log.warning("%s does not say which encoder made it: trusted", vectors.path)
    trec.write_run(output, found, tag)
    provenance.record(output, made_from)


def main() -> None:
    """Search vectors from the command line."""
    parser = argparse.ArgumentParser(
        prog="dense_hn.mine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--encoder", required=True, help="folder or hub name")
    passages = parser.add_mutually_exclusive_group(required=True)
    passages.add_argument("--vectors", help="folder from dense_hn.encode")
    passages.add_argument("--index", help="faiss folder as Pyserini searches it")
    parser.add_argument("--topics", required=True, help="TSV, TREC or JSON")
    parser.add_argument(
        "--qrels",
        help="TREC qrels: list their relevant documents, too, where they are no hits; "
        "training with drop_ margins wants their scores",
    )
    parser.add_argument("--hits", type=int, default=200, help="default 200")
    parser.add_argument("--output", required=True, help="run file to write")
    parser.add_argument("--tag", default="dense_hn", help="last column of the run")
    args = parser.parse_args()
    vectors = read_index(args.index) if args.index else Vectors.load(args.vectors)
    encoder = DenseEncoder.load(args.encoder)
    mine(encoder, vectors, args.topics, args.hits, args.output, args.tag, args.qrels)


if __name__ == "__main__":
    cli.run(main)
