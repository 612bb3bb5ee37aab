"""A collection from any source, written as a folder of this project's files.

    python -m dense_hn.collections beir:path/to/scifact --output collections/scifact

The source is KIND:VALUE, the value in YAML:

    "files:{corpus: PATH, train: [TOPICS, QRELS], test: TOPICS}"
                                 files of one's own, in any format that is read; TOPICS
                                 and QRELS may be pyserini:NAME
    beir:FOLDER                  corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv; without titles:
                                 "beir:{folder: FOLDER, titles: false}"
    "dpr:{corpus: psgs_w100.tsv.gz, train: biencoder-nq-train.json.gz}"
                                 DPR's question answering files
    ir_datasets:ID               downloaded; ID/train, ID/dev and ID/test, or any splits:
                                 ir_datasets:{train: ID, dev: ID, NAME: ID}
    pydoc:[stdlib, numpy]        documented functions of Python packages
    folder:FOLDER                such a folder, to be cleaned
    "passages:{of: {beir: FOLDER}, words: 60, overlap: 20}"
                                 the documents of another source, cut: D becomes D#0, D#1, …

integrations/pyserini/inputs.md shows every format. What cannot be used is left out and
counted: documents without text, topics without a relevant document, training topics that
are evaluated on as well. Without a dev split, a tenth of the training topics become one.
"""

from dense_hn import cli
from dense_hn.collections import sources


def main() -> None:
    """Build a collection from the command line."""
    parser = cli.parser("dense_hn.collections", __doc__)
    parser.add_argument("source", help="KIND:VALUE")
    parser.add_argument("--output", required=True, help="collection folder to write")
    args = parser.parse_args()
    sources.build(*sources.parse(args.source), args.output)


if __name__ == "__main__":
    cli.run(main)
