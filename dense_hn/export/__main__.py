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
    lucene-flat, lucene-hnsw   a dense Lucene index, for vectors of length one

An index appears when the real Pyserini, called as is printed, has found in it what we
find there.
"""

import argparse
import logging
import shlex
from collections.abc import Callable

from dense_hn import DenseHNError, cli, trec
from dense_hn.encode import JSONL, Vectors
from dense_hn.encoder import DenseEncoder, locate
from dense_hn.export import faiss_index, lucene
from dense_hn.export.folder import export_index
from dense_hn.export.jsonl import export_jsonl
from dense_hn.export.search_command import as_typed, search_command

log = logging.getLogger("dense_hn")


def _faiss(args: argparse.Namespace) -> None:
    path = locate(args.encoder)
    vectors = Vectors.load(args.vectors)
    encoder = DenseEncoder.load(path)
    topics = trec.read_topics(args.topics) if args.topics else {}
    command = search_command(
        encoder.settings, path, args.output, args.topics or "TOPICS.tsv", "RUN.txt"
    )
    export_index(
        vectors,
        args.output,
        {path: encoder},
        args.form,
        _given(args),
        args.threads,
        topics.values(),
    )
    print(as_typed("search.faiss", command))


def _lucene(args: argparse.Namespace) -> None:
    path = locate(args.encoder)
    vectors = Vectors.load(args.vectors)
    encoder = DenseEncoder.load(path)
    topics = trec.read_topics(args.topics) if args.topics else {}
    output = args.output
    encoded = f"ENCODED/{JSONL}"
    command = lucene.search_command(args.form, output, encoded, "RUN.txt")
    found = lucene.export_lucene(
        vectors, output, args.form, encoder, path, _given(args), topics.values()
    )
    log.info("%s, %s: %s", output, path, found)
    encode = ["--encoder", path, "--topics", args.topics or "TOPICS.tsv"]
    print(shlex.join(["python", "-m", "dense_hn.encode", "topics", *encode]), end=" ")
    print("--output ENCODED")
    print(as_typed("search.lucene", command))


def _jsonl(args: argparse.Namespace) -> None:
    vectors = Vectors.load(args.vectors)
    if _given(args):
        raise DenseHNError(f"form jsonl has no parameter {next(iter(_given(args)))}")
    vectors.require_made_by(DenseEncoder.load(args.encoder), args.encoder)
    export_jsonl(vectors, args.output)
    command = ["--input", args.output, "--output", "INDEX"]
    command += ["--dim", str(vectors.matrix.shape[1])]
    print(as_typed("index.faiss", command))


def _given(args: argparse.Namespace) -> dict[str, int]:
    """The parameters of forms that are on the command line."""
    return {
        name: getattr(args, name)
        for names in faiss_index.PARAMETERS.values()
        for name in names
        if getattr(args, name) is not None
    }


# What writes each form.
FORMS: dict[str, Callable[[argparse.Namespace], None]] = {
    **dict.fromkeys(faiss_index.FORMS, _faiss),
    **dict.fromkeys(lucene.FORMS, _lucene),
    "jsonl": _jsonl,
}


def main() -> None:
    """Export vectors from the command line, and print how to search them."""
    parser = argparse.ArgumentParser(
        prog="dense_hn.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vectors", required=True, help="folder from dense_hn.encode")
    parser.add_argument("--encoder", required=True, help="query encoder folder")
    parser.add_argument("--output", required=True, help="index folder to write")
    parser.add_argument("--form", choices=FORMS, default="flat", help="default flat")
    parser.add_argument(
        "--topics", help="TSV file: search some of it in the self-check"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of faiss; default 1, with which an index is the same every time",
    )
    for part, parameters in faiss_index.PARAMETERS.items():
        group = parser.add_argument_group(f"forms with {part}")
        for name, what in parameters.items():
            group.add_argument(f"--{name}", type=int, metavar="N", help=what)
    args = parser.parse_args()
    FORMS[args.form](args)


if __name__ == "__main__":
    cli.run(main)
