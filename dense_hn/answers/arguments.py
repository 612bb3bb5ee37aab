"""Command-line arguments that say where answers stand, and how they are looked for."""

import argparse


def add_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add them; ``required`` or not."""
    parser.add_argument(
        "--answers",
        required=required,
        metavar="FILE",
        help="question<TAB>['answer', …] in .csv or .tsv, DPR's training .json, or .jsonl "
        "with qid and answers",
    )
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="topics of DPR's files are called NAME-0, NAME-1, …, as dense_hn.collections "
        "calls them (default: 0, 1, …, as Pyserini does)",
    )
    parser.add_argument(
        "--corpus",
        required=required,
        metavar="PATH",
        help="passages that are looked in, titles apart from texts: DPR's TSV, Pyserini's "
        "JSON, BEIR's corpus.jsonl",
    )
    parser.add_argument(
        "--regex",
        action="store_true",
        help="answers are regular expressions, as CuratedTREC's",
    )
