"""A model's own top-k for topics, as a TREC run.

    python -m dense_hn.mine --encoder DIR --vectors DIR --topics topics.tsv --output run

The same run serves as static hard negatives for training topics (known positives are
removed when it is read) and as the result to be evaluated for test topics. Scores are
the model's own: plain dot products of its vectors.
"""

import argparse
from collections.abc import Mapping

from tqdm import tqdm

from dense_hn import cli, search, trec
from dense_hn.encode import Vectors, encode_texts
from dense_hn.encoder import DenseEncoder

BATCH = 256


def retrieve(
    encoder: DenseEncoder, vectors: Vectors, topics: Mapping[str, str], hits: int
) -> trec.Run:
    """Exact top ``hits`` of the whole corpus for every topic.

    Args:
        encoder: query encoder that belongs to the vectors.
        vectors: the corpus.
        topics: qid to text.
        hits: documents per topic.

    Raises:
        DenseHNError: the vectors were made by another encoder.
    """
    vectors.require_made_by(encoder, "this one")
    queries = encode_texts(encoder, list(topics.values()), "query").to(encoder.device)
    matrix = vectors.matrix.to(encoder.device)
    run: trec.Run = {}
    qids = list(topics)
    with tqdm(total=len(qids), desc="Searching vectors", unit=" queries") as progress:
        for start in range(0, len(qids), BATCH):
            batch = qids[start : start + BATCH]
            found = search.top_k(queries[start : start + BATCH], matrix, hits)
            scores, rows = (tensor.tolist() for tensor in found)
            for qid, best, places in zip(batch, scores, rows, strict=True):
                docids = [vectors.docids[row] for row in places]
                run[qid] = dict(zip(docids, best, strict=True))
            progress.update(len(batch))
    return run


def main() -> None:
    """Search vectors from the command line."""
    parser = argparse.ArgumentParser(
        prog="dense_hn.mine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--encoder", required=True, help="folder or hub name")
    parser.add_argument("--vectors", required=True, help="folder from dense_hn.encode")
    parser.add_argument("--topics", required=True, help="TSV file")
    parser.add_argument("--hits", type=int, default=200, help="default 200")
    parser.add_argument("--output", required=True, help="run file to write")
    parser.add_argument("--tag", default="dense_hn", help="last column of the run")
    args = parser.parse_args()
    topics = trec.read_topics(args.topics)
    vectors = Vectors.load(args.vectors)
    run = retrieve(DenseEncoder.load(args.encoder), vectors, topics, args.hits)
    trec.write_run(args.output, run, args.tag)


if __name__ == "__main__":
    cli.run(main)
