"""Packages for leaderboards, made from TREC runs, or checked when made elsewhere.

    python -m dense_hn.submit msmarco-passage --dev RUN --eval RUN --dev_topics FILE
        --eval_topics FILE --docids FILE --id yyyymmdd-name --team … --model_description …
        --output DIR
    python -m dense_hn.submit msmarco-passage --check DIR|ARCHIVE --dev_topics FILE
        --eval_topics FILE --docids FILE
    python -m dense_hn.submit trec-dl --year 2020 --task passage --run RUN --topics FILE
        --docids FILE --tag TAG --output FILE
    python -m dense_hn.submit trec-dl --year 2020 --task passage --check FILE --topics FILE
        --docids FILE

and msmarco-document like msmarco-passage. Topics are in any format that is read. A check prints every problem with its line (in
the unpacked file) and ends with status 1, or else says in one line what was checked.
"""

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from dense_hn import DenseHNError, cli, trec
from dense_hn.collections.corpus import read_corpus
from dense_hn.ids import read_docids
from dense_hn.submit import msmarco, packages, trecdl
from dense_hn.submit.boards import MSMARCO, SPLITS, TREC_DL, TYPES
from dense_hn.submit.problems import Problems

log = logging.getLogger("dense_hn")

# Options that make a package: True for those without which there is none.
MAKE_MSMARCO = {
    "dev": True,
    "eval": True,
    "id": True,
    "team": True,
    "model_description": True,
    "output": True,
    "paper": False,
    "code": False,
    "type": False,
    "embargo_until": False,
}
MAKE_TREC_DL = {"run": True, "tag": True, "output": True}


def main() -> None:
    """Make or check a package from the command line."""
    parser = cli.parser("dense_hn.submit", __doc__)
    boards = parser.add_subparsers(dest="board", required=True)
    for name in MSMARCO:
        _add_msmarco(boards.add_parser(name, help=f"{name} ranking leaderboard"))
    _add_trec_dl(boards.add_parser("trec-dl", help="TREC Deep Learning track"))
    args = parser.parse_args()
    (_trec_dl if args.board == "trec-dl" else _msmarco)(args)


def _add_msmarco(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, "package to check: folder, .tar, .tar.gz, .tgz or .zip")
    for split in SPLITS:
        parser.add_argument(f"--{split}", help=f"TREC run of the {split} topics")
        parser.add_argument(
            f"--{split}_topics", required=True, help=f"the {split} topics"
        )
    parser.add_argument("--id", help="yyyymmdd-name, the day of the submission first")
    parser.add_argument("--team", help="metadata: who you are, unambiguously")
    parser.add_argument("--model_description", help="metadata: name on the board")
    parser.add_argument("--paper", help="metadata: URL, empty unless given")
    parser.add_argument("--code", help="metadata: URL, empty unless given")
    parser.add_argument(
        "--type", choices=TYPES, help=f"metadata: {TYPES[0]!r} unless given"
    )
    parser.add_argument(
        "--embargo_until", help="metadata, to be anonymous until then: yyyy/mm/dd"
    )
    parser.add_argument("--output", help="folder that will hold `submissions`")


def _add_trec_dl(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, "run to check, .gz or not")
    years, tasks = (sorted(set(names)) for names in zip(*TREC_DL, strict=True))
    parser.add_argument("--year", type=int, choices=years, required=True)
    parser.add_argument("--task", choices=tasks, required=True)
    parser.add_argument("--topics", required=True, help="the test topics")
    parser.add_argument("--run", help="TREC run")
    parser.add_argument("--tag", help="the run's name at TREC, its last column")
    parser.add_argument("--output", help="run file to write")


def _add_common(parser: argparse.ArgumentParser, check: str) -> None:
    parser.add_argument("--check", help=f"{check}; nothing is made")
    known = parser.add_mutually_exclusive_group()
    known.add_argument("--docids", help="the corpus's docids, one a line")
    known.add_argument("--corpus", help="the corpus: JSONL, TSV or a folder")


def _msmarco(args: argparse.Namespace) -> None:
    _require(args, MAKE_MSMARCO, allowed=())
    board = MSMARCO[args.board]
    paths = {split: getattr(args, f"{split}_topics") for split in SPLITS}
    topics = {
        split: _topics(paths[split], board.topics[split], f"{args.board} {split}")
        for split in SPLITS
    }
    docids = _docids(args)
    if args.check:
        problems = Problems()
        said = packages.check(args.check, board, topics, docids, problems)
        _tell(args.check, said, problems)
        return
    metadata = {
        "team": args.team,
        "model_description": args.model_description,
        "paper": args.paper or "",
        "code": args.code or "",
        "type": args.type or TYPES[0],
    }
    if args.embargo_until is not None:
        metadata["embargo_until"] = args.embargo_until
    said = msmarco.make(
        args.output,
        args.id,
        board,
        {split: getattr(args, split) for split in SPLITS},
        topics,
        paths,
        docids,
        args.docids or args.corpus,
        metadata,
    )
    print(f"{args.output}: {said}; written and checked")
    print(
        f"""By hand, in a clone of https://github.com/{board.repository}:
  cp -r {Path(args.output).resolve()}/submissions .
  python eval/run_eval.py --id {args.id}
  eval/pack.sh {args.id}
  commit submissions/{args.id}.key.bin.enc, {args.id}.tar.enc and
  {args.id}-metadata.json.enc, and nothing else, and open a pull request with the title
  "Submission {args.id}"; keep submissions/{args.id}.key.bin to change metadata later
Look first whether the board still takes submissions: that is not known here."""
    )


def _trec_dl(args: argparse.Namespace) -> None:
    _require(args, MAKE_TREC_DL, allowed=("tag",))
    board = TREC_DL[args.year, args.task]
    topics = _topics(args.topics, board.topics, f"TREC DL {args.year}")
    docids = _docids(args)
    if args.check:
        problems = Problems()
        said = trecdl.check(args.check, board, topics, docids, args.tag, problems)
        _tell(args.check, said, problems)
        return
    said = trecdl.make(
        args.output,
        board,
        args.run,
        topics,
        args.topics,
        docids,
        args.docids or args.corpus,
        args.tag,
    )
    print(f"{args.output}: {said}; written and checked")


def _require(
    args: argparse.Namespace, make: Mapping[str, bool], allowed: tuple[str, ...]
) -> None:
    """Refuse options that --check would ignore, and missing ones without it."""
    given = {name for name in make if getattr(args, name) is not None}
    wrong = given - {*allowed} if args.check else {n for n in make if make[n]} - given
    if wrong:
        names = ", ".join(f"--{name}" for name in make if name in wrong)
        raise DenseHNError(
            f"{names}: of no use with --check; leave it out"
            if args.check
            else f"{names} is missing; give it, or --check to check a package"
        )


def _topics(path: str, number: int, board: str) -> trec.Topics:
    topics = trec.read_topics(path)
    if len(topics) != number:
        log.warning(
            "%s: %d topics; %s has %d, which the board expects hits for",
            path,
            len(topics),
            board,
            number,
        )
    return topics


def _docids(args: argparse.Namespace) -> set[str] | None:
    if args.docids:
        return set(read_docids(args.docids, "docids"))
    if args.corpus:
        return set(read_corpus(args.corpus))
    log.warning("neither --docids nor --corpus is given: docids are not checked")
    return None


def _tell(path: str, said: str, problems: Problems) -> None:
    """Print what a check found; ends the process with status 1 if that is anything."""
    if problems:
        print("\n".join(problems.lines()))
        sys.exit(1)
    print(f"{path}: {said}; no problem found")


if __name__ == "__main__":
    cli.run(main)
