"""One HTML file of a recipe that ran: scores, differences, rankings, curves, costs.

    python -m dense_hn.report .
    python -m dense_hn.report OUTPUT_DIR --recipe nl2bash --diagnosis diagnosis

OUTPUT_DIR is what `python -m dense_hn.train RECIPE --output` was given (else the folder it
ran in). The page needs no network and no other file. For any two systems of the table it
has every topic's difference, and, for the topics that changed most, both rankings with the
passages' text. `--diagnosis` adds the figures of folders that `dense_hn.diagnose` wrote.
"""

import argparse
import logging
from pathlib import Path

from dense_hn import DenseHNError, cli
from dense_hn.files import require_file_or_none, whole_file
from dense_hn.report import figures, page
from dense_hn.report.comparison import compare
from dense_hn.train.places import Places

log = logging.getLogger("dense_hn")


def run(args: argparse.Namespace) -> None:
    """Gather what the page shows, and write it."""
    figures.require()
    if args.topics < 0:
        raise DenseHNError(f"--topics is {args.topics}; it starts at 0")
    places = Places.found(args.folder, args.recipe)
    output = args.output or places.runs / "report.html"
    if output.suffix != ".html":
        raise DenseHNError(f"--output: {output}: name a file that ends in .html")
    require_file_or_none(output)
    diagnoses = [page.diagnosis(folder) for folder in args.diagnosis]
    html = page.render(places, compare(places, args.topics), diagnoses)
    with whole_file(output) as part:
        part.write_text(html, encoding="utf-8")
    log.info("%s: %.1f MB", output, output.stat().st_size / 1e6)


def main() -> None:
    """Write a report from the command line."""
    parser = cli.parser("dense_hn.report", __doc__)
    parser.add_argument(
        "folder", type=Path, metavar="OUTPUT_DIR", help="that a recipe ran in"
    )
    parser.add_argument("--recipe", default="", help="where several ran: which")
    parser.add_argument(
        "--diagnosis",
        nargs="+",
        type=Path,
        default=(),
        metavar="DIR",
        help="folders of dense_hn.diagnose",
    )
    parser.add_argument(
        "--topics",
        type=int,
        default=10,
        help="whose rankings are kept, for each two systems: that gained most, and "
        "that lost most (10)",
    )
    parser.add_argument(
        "--output", type=Path, help="HTML file (OUTPUT_DIR/runs/RECIPE/report.html)"
    )
    run(parser.parse_args())


if __name__ == "__main__":
    cli.run(main)
