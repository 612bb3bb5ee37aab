"""Vectors in a form that Pyserini opens, and the command line that searches them.

    python -m dense_hn.export --vectors DIR --encoder DIR --output indexes/NAME

Forms of faiss (a folder of ``index``, ``docid`` and ``manifest.json``):

    flat         32-bit numbers, exact
    fp16, sq8    16 and 8 bits for a number: a half and a quarter of the size
    hnsw, hnsw-fp16            a graph: fast, and larger
    pq, opq-pq                 product quantisation: --pq_m bytes for a passage; with
                               opq after a rotation that it learns (slowly)
    ivf, ivf-pq, opq-ivf-pq    cells, of which the --nprobe nearest are searched

The folder appears when the real Pyserini, called as is printed, has found in it what we
find there.
"""

import argparse
from collections.abc import Callable

from dense_hn import cli, trec
from dense_hn.encode import Vectors
from dense_hn.encoder import DenseEncoder, locate
from dense_hn.export import faiss_index
from dense_hn.export.folder import export_index
from dense_hn.export.search_command import as_typed, search_command


def _faiss(args: argparse.Namespace) -> None:
    path = locate(args.encoder)
    vectors = Vectors.load(args.vectors)
    encoder = DenseEncoder.load(path)
    topics = trec.read_topics(args.topics) if args.topics else {}
    command = search_command(
        encoder.settings, path, args.output, args.topics or "TOPICS.tsv", "RUN.txt"
    )
    given = {
        name: getattr(args, name)
        for names in faiss_index.PARAMETERS.values()
        for name in names
        if getattr(args, name) is not None
    }
    export_index(
        vectors,
        args.output,
        {path: encoder},
        args.form,
        given,
        args.threads,
        topics.values(),
    )
    print(as_typed(command))


# What writes each form.
FORMS: dict[str, Callable[[argparse.Namespace], None]] = {
    **dict.fromkeys(faiss_index.FORMS, _faiss),
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
