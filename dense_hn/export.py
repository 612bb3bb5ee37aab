"""Pyserini's dense index folder, and the command line that searches it.

    python -m dense_hn.export --vectors DIR --encoder DIR --output indexes/NAME

The folder holds ``index`` (faiss, inner product) and ``docid``, as
``pyserini.index.faiss`` writes them.
"""

import argparse
import shlex
from pathlib import Path

from dense_hn import DenseHNError, cli
from dense_hn.encode import Vectors
from dense_hn.encoder import FILE, DenseEncoder, EncoderSettings
from dense_hn.files import whole_folder

# Pyserini sets options by these words in an encoder's path, whatever --encoder-class
# says (pyserini.search.faiss, init_query_encoder).
TRIGGERS = ("clip", "contriever", "dse", "openai", "sentence")


def export_flat(vectors: Vectors, folder: str | Path) -> None:
    """Write the vectors as a flat inner-product faiss index that Pyserini opens."""
    import faiss

    index = faiss.IndexFlatIP(vectors.matrix.shape[1])
    index.add(vectors.matrix.numpy())
    with whole_folder(folder, "docid") as partial:
        faiss.write_index(index, str(partial / "index"))
        (partial / "docid").write_text("".join(f"{d}\n" for d in vectors.docids))


def require_plain(path: str | Path) -> None:
    """Refuse an encoder folder whose path makes Pyserini change how it encodes.

    Raises:
        DenseHNError: names the word in the path.
    """
    for word in TRIGGERS:
        if word in str(path).lower():
            raise DenseHNError(
                f"{path}: Pyserini encodes queries differently when an encoder's path "
                f"has {word!r} in it; choose another name"
            )


def search_command(
    settings: EncoderSettings,
    encoder: str | Path,
    index: str | Path,
    topics: str | Path,
    output: str | Path,
    hits: int = 1000,
) -> list[str]:
    """Arguments of ``pyserini.search.faiss`` that search the index as we do.

    They are for `python -m dense_hn.pyserini search.faiss`, which `ance` encoders need.

    Raises:
        DenseHNError: a path that makes Pyserini encode queries or read topics in
            another way; an encoder with another tokenization than its files say.

    Args:
        settings: the query encoder's.
        encoder: its folder.
        index: exported index folder.
        topics: TSV file.
        output: run file that Pyserini will write.
        hits: documents per topic.
    """
    require_plain(encoder)
    if settings.tokenization != "own" and not (Path(encoder) / FILE).is_file():
        raise DenseHNError(
            f"{encoder}: nothing in it tells Pyserini of the tokenization "
            f"{settings.tokenization}; run `python -m dense_hn.encoder --source {encoder} "
            "--output DIR` and name that folder"
        )
    if "cacm" in str(topics):
        raise DenseHNError(
            f"{topics}: Pyserini reads topics in another format when their path has "
            "'cacm' in it; choose another name"
        )
    command = ["--encoder-class", settings.architecture, "--encoder", str(encoder)]
    if settings.architecture == "auto":
        command += ["--pooling", settings.pooling]
        command += ["--l2-norm"] if settings.l2_norm else []
    if settings.query_prefix:
        command += ["--query-prefix", settings.query_prefix]
    command += ["--index", str(index), "--topics", str(topics), "--output", str(output)]
    return [*command, "--hits", str(hits)]


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
    args = parser.parse_args()
    require_plain(args.encoder)
    vectors = Vectors.load(args.vectors)
    encoder = DenseEncoder.load(args.encoder)
    vectors.require_made_by(encoder, args.encoder)
    command = search_command(
        encoder.settings, args.encoder, args.output, "TOPICS.tsv", "RUN.txt"
    )
    export_flat(vectors, args.output)
    print(f"python -m dense_hn.pyserini search.faiss {shlex.join(command)}")


if __name__ == "__main__":
    cli.run(main)
