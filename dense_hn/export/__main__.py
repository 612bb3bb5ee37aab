"""Vectors in a form that Pyserini opens, and the command line that searches them.

    python -m dense_hn.export --vectors DIR --encoder DIR --output indexes/NAME

Forms of faiss (a folder of ``index``, ``docid`` and ``manifest.json``):

    flat         32-bit numbers, exact
    fp16, sq8    16 and 8 bits for a number: a half and a quarter of the size
    hnsw, hnsw-fp16            a graph: fast, and larger
    pq, opq-pq                 product quantisation: --pq_m bytes for a passage; with
                               opq after a rotation that it learns (slowly)
    ivf, ivf-pq, opq-ivf-pq    cells, of which the --nprobe nearest are searched

Other forms:

    jsonl                      for pyserini.index.faiss and Anserini's dense Lucene
    lucene-flat, lucene-hnsw   a dense Lucene index, for vectors of length one; the
                               graph's --M is 16 and --efC 100 if not given

An index appears when the real Pyserini, called as is printed, has found in it what we
find there.
"""

import argparse
import logging
import shlex
from collections.abc import Callable
from pathlib import Path

from dense_hn import DenseHNError, cli, trec
from dense_hn.encode import JSONL, topics_beside
from dense_hn.encoder import DenseEncoder
from dense_hn.export import faiss_index, lucene
from dense_hn.export.folder import export_index
from dense_hn.export.jsonl import export_jsonl
from dense_hn.export.parameters import complete
from dense_hn.pretrained import locate
from dense_hn.search_command import as_typed, search_command
from dense_hn.vectors import Vectors

log = logging.getLogger("dense_hn")


def _faiss(
    args: argparse.Namespace,
    given: dict[str, int],
    vectors: Vectors,
    encoder: DenseEncoder,
) -> None:
    texts, topics = [], Path("TOPICS.tsv")
    if args.topics:
        texts = trec.read_topics(args.topics).values()
        topics = trec.for_pyserini(args.topics, topics_beside(args.output))
    command = search_command(
        encoder.settings, args.encoder, args.output, topics, "RUN.txt"
    )
    threads = given.pop("threads", 1)
    encoders = {args.encoder: encoder}
    export_index(vectors, args.output, encoders, args.form, given, threads, texts)
    print(as_typed("search.faiss", command))


def _lucene(
    args: argparse.Namespace,
    given: dict[str, int],
    vectors: Vectors,
    encoder: DenseEncoder,
) -> None:
    texts = trec.read_topics(args.topics).values() if args.topics else []
    found = lucene.export_lucene(
        vectors, args.output, args.form, encoder, args.encoder, given, texts
    )
    log.info("%s, %s: %s", args.output, args.encoder, found)
    command = ["python", "-m", "dense_hn.encode", "topics", "--encoder", args.encoder]
    command += ["--topics", args.topics or "TOPICS.tsv", "--output", "ENCODED"]
    print(shlex.join(command))
    command = lucene.search_command(
        args.form, args.output, f"ENCODED/{JSONL}", "RUN.txt"
    )
    print(as_typed("search.lucene", command))


def _jsonl(
    args: argparse.Namespace,
    given: dict[str, int],
    vectors: Vectors,
    encoder: DenseEncoder,
) -> None:
    complete(args.form, given, {})
    if args.topics:
        raise DenseHNError(
            "--topics is searched in an index, and form jsonl is none; leave it out"
        )
    vectors.require_made_by(encoder, args.encoder)
    export_jsonl(vectors, args.output)
    command = ["--input", args.output, "--output", "INDEX"]
    command += ["--dim", str(vectors.matrix.shape[1])]
    print(as_typed("index.faiss", command))


# What writes each form, from the command line, the parameters that are given on it, the
# vectors and the encoder, and prints the commands that go on.
FORMS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(faiss_index.FORMS, _faiss),
    **dict.fromkeys(lucene.FORMS, _lucene),
    "jsonl": _jsonl,
}


def main() -> None:
    """Export vectors from the command line, and print how to search them."""
    parser = cli.parser("dense_hn.export", __doc__)
    parser.add_argument("--vectors", required=True, help="folder from dense_hn.encode")
    parser.add_argument("--encoder", required=True, help="query encoder folder")
    parser.add_argument("--output", required=True, help="index folder to write")
    parser.add_argument("--form", choices=FORMS, default="flat", help="default flat")
    parser.add_argument(
        "--topics", help="TSV, TREC or JSON: search some of it in the self-check"
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="of faiss; default 1, with which an index is the same every time",
    )
    for part, parameters in faiss_index.PARAMETERS.items():
        group = parser.add_argument_group(f"forms with {part}")
        for name, what in parameters.items():
            group.add_argument(f"--{name}", type=int, metavar="N", help=what)
    args = parser.parse_args()
    names = [name for part in faiss_index.PARAMETERS.values() for name in part]
    given = {name: getattr(args, name) for name in [*names, "threads"]}
    given = {name: value for name, value in given.items() if value is not None}
    args.encoder = locate(args.encoder)
    vectors, encoder = Vectors.load(args.vectors), DenseEncoder.load(args.encoder)
    FORMS[args.form](args, given, vectors, encoder)


if __name__ == "__main__":
    cli.run(main)
