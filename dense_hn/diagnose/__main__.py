"""The paper's analysis of any encoders: pairwise errors, and how static negatives drift.

    python -m dense_hn.diagnose --topics topics.train.tsv --qrels qrels.train.txt \\
        --system warmup models/warmup vectors/warmup --system star models/star vectors/star \\
        --negatives warmup.train.txt --output diagnosis

Each ``--system`` is a name, an encoder folder and the vectors that it searches; in their
place, ``--folder`` takes the output folder of a recipe that ran, with its topics and all of its
encoders:

    python -m dense_hn.diagnose --folder . --output diagnosis

For every topic and relevant passage the passages of the whole corpus that score above it, and
are not relevant, are counted exactly (T); random negatives lower the mean of T, hard ones that
of min(T, K). With ``--negatives``, a run for these topics, each system says where these static
negatives stand now: how many are still among its own top ones, and at what rank. With
``--log``, of trainings that were evaluated meanwhile, their curves are put side by side.

``--output`` gets ``diagnosis.json``, ``errors.csv`` (every pair's T), ``curves.csv``,
``table.txt`` (which is printed), and figures, PNG and SVG (with matplotlib). Started with
``torchrun --nproc_per_node N -m dense_hn.diagnose …``, N processes count over a part of the
passages each; after it was stopped, the same command goes on with the next system.

Source: arXiv 2104.08051, section 4.
"""

import argparse
import csv
import json
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dense_hn import DenseHNError, __version__, cli, ranks, trec
from dense_hn.diagnose import figures
from dense_hn.diagnose.errors import above, carried_by
from dense_hn.encode import encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.files import digest, require_replaceable, whole_file, whole_folder
from dense_hn.ids import require_from_one
from dense_hn.index import read_vectors
from dense_hn.train import curves
from dense_hn.train.places import Places
from dense_hn.train.trainer import log_of
from dense_hn.vectors import Vectors

log = logging.getLogger("dense_hn")

# K of min(T, K), and ranks that static negatives are looked for at.
DEPTHS = (10, 100, 200)
# Shares of the queries, the worst of them, whose part of all errors is told: 0.2% is the
# paper's.
SHARES = (0.002, 0.01, 0.1)
REPORT, PAIRS, TABLE = "diagnosis.json", "errors.csv", "table.txt"
CURVES = "curves.csv"
MEANWHILE = "dev topics while training (train_: training topics)"
OTHERS = (PAIRS, CURVES, TABLE, "*.png", "*.svg")


def diagnose(
    encoder: DenseEncoder,
    vectors: Vectors,
    topics: trec.Topics,
    qrels: trec.Qrels,
    negatives: Mapping[str, Sequence[str]],
) -> tuple[list[dict[str, int]], list[list[int]]]:
    """Count for an encoder, over the whole corpus of its vectors.

    Args:
        encoder: the query encoder that belongs to the vectors, as
            `Vectors.require_made_by` checks.
        vectors: of the corpus.
        topics: all have a relevant passage.
        qrels: for them.
        negatives: docids, by query; may be empty.

    Returns:
        By topic, in their order: relevant docid to T; and the ranks of the topic's
        negatives among what is not relevant, from 1.

    Raises:
        DenseHNError: vectors that are not finite.
    """
    relevant = [trec.positives(qrels, qid) for qid in topics]
    rows = [vectors.docids.rows(docids).tolist() for docids in relevant]
    static = [vectors.docids.rows(negatives.get(q, ())).tolist() for q in topics]
    queries = encode_texts(encoder, list(topics.values()), "query")
    listed = [ours + theirs for ours, theirs in zip(rows, static, strict=True)]
    counts = above(queries, vectors.matrix, listed, rows)
    errors, ranks = [], []
    for docids, counted in zip(relevant, counts, strict=True):
        errors.append(dict(zip(docids, counted, strict=False)))
        ranks.append([number + 1 for number in counted[len(docids) :]])
    return errors, ranks


def summary(errors: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Figures of all pairs' T: the mean and the tail, min(T, K), the worst queries' part."""
    of_pairs = np.array([t for one in errors for t in one.values()], dtype=np.float64)
    of_queries = [sum(one.values()) for one in errors]
    return {
        "pairs": len(of_pairs),
        "mean": of_pairs.mean(),
        "median": np.median(of_pairs),
        "99%": np.quantile(of_pairs, 0.99, method="higher"),
        "most": of_pairs.max(),
        **{f"top-{k}": np.minimum(of_pairs, k).mean() for k in DEPTHS},
        **{f"worst {s:.1%}": carried_by(of_queries, s) for s in SHARES},
    }


def drift(ranks: Sequence[Sequence[int]]) -> dict[str, float]:
    """Where static negatives stand: median and mean rank, and the part that is on top.

    ``in top K`` is the part of each topic's first K negatives, as their run ranks them, that
    the encoder still has among its own first K.
    """
    every = np.array([rank for of in ranks for rank in of], dtype=np.float64)
    kept = {k: [rank <= k for of in ranks for rank in of[:k]] for k in DEPTHS}
    return {
        "negatives": len(every),
        "median rank": np.median(every),
        "mean rank": every.mean(),
        **{f"in top {k}": np.mean(inside) for k, inside in kept.items()},
    }


def table(figures_of: Mapping[str, Mapping[str, float]]) -> str:
    """A row a system, a column a figure."""
    names = list(next(iter(figures_of.values())))
    width = max(map(len, figures_of))
    lines = [" " * width + "".join(f"  {name:>11}" for name in names)]
    for system, row in figures_of.items():
        cells = (f"  {_cell(name, row[name]):>11}" for name in names)
        lines.append(f"{system:{width}}" + "".join(cells))
    return "\n".join(lines)


def _cell(name: str, value: float) -> str:
    if name.startswith(("worst", "in top")):
        return f"{value:.1%}"
    return f"{value:,.1f}" if "mean" in name or "top" in name else f"{value:,.0f}"


def fill(args: argparse.Namespace, places: Places) -> None:
    """Name what a recipe made, where nothing else is named."""
    if places.max_passage and not args.qrels:
        log.warning(
            "of relevant documents every passage counts as relevant, those that training left "
            "out (positives), too"
        )
    args.topics = args.topics or places.topics(args.split)
    args.qrels = args.qrels or places.judged(args.split)
    names = ["base"] * places.recipe.evaluate.untrained
    names += [stage.name for stage in places.recipe.stages]
    args.system = args.system or [
        (name, str(places.model(name)), str(places.vectors(places.passages(name))))
        for name in names
    ]
    if args.log is None:
        logs = {name: log_of(places.model(name)) for name in names}
        # The base has none: it comes as it is.
        args.log = [(name, path) for name, path in logs.items() if path.is_file()]


def run(args: argparse.Namespace) -> None:
    """Diagnose all systems, one after another, and write the folder."""
    figures.require()
    require_replaceable(args.output, REPORT, also=OTHERS)
    for name in ("depth", "sample"):
        if getattr(args, name) is not None:
            require_from_one(getattr(args, name), name)
    if args.folder:
        fill(args, Places.found(args.folder, args.recipe))
    for name in ("system", "topics", "qrels"):
        if not getattr(args, name):
            raise DenseHNError(f"give --{name}, or --folder, which has all of them")
    topics, qrels = trec.read_judged(args.topics, args.qrels, args.relevance_level)
    if args.sample and args.sample < len(topics):
        chosen = set(random.Random(args.seed).sample(list(topics), args.sample))
        log.info("%d of %d topics are looked at", len(chosen), len(topics))
        topics = {qid: text for qid, text in topics.items() if qid in chosen}
    for flag, named in (("system", args.system), ("log", args.log or ())):
        if len({name for name, *_ in named}) < len(named):
            raise DenseHNError(f"--{flag}: each needs a name of its own")
    hits = trec.read_run(args.negatives) if args.negatives else {}
    systems = {
        name: (DenseEncoder.load(encoder), read_vectors(vectors))
        for name, encoder, vectors in args.system
    }
    measured = {name: curves.read(path) for name, path in args.log or ()}
    measured = {name: of for name, of in measured.items() if of}
    for name, (encoder, vectors) in systems.items():
        vectors.require_made_by(encoder, name)
        trec.require_known(qrels, vectors.docids, args.qrels, vectors.path)
        trec.require_known(hits, vectors.docids, args.negatives, vectors.path)
    if hits:
        trec.tell_uncovered(topics, hits, args.topics, args.negatives, "negatives")
    negatives = {
        qid: [d for d in trec.ranked(hits[qid]) if qrels[qid].get(d, 0) < 1][
            : args.depth
        ]
        for qid in topics
        if qid in hits
    }
    made_from = {
        "dense_hn": __version__,
        "systems": {
            name: [encoder.digest("query"), vectors.encoder, vectors.corpus]
            for name, (encoder, vectors) in systems.items()
        },
        "topics": [digest(args.topics), args.sample, args.seed],
        "qrels": [digest(args.qrels), args.relevance_level],
        "negatives": args.negatives and [digest(args.negatives), args.depth],
    }
    with ranks.parts(args.output, made_from) as parts:
        counted = [
            counts_of(parts / f"{number}.json", *system, topics, qrels, negatives)
            for number, system in enumerate(systems.values())
        ]
        if not ranks.place()[0]:
            write(
                args.output, topics, dict(zip(systems, counted, strict=True)), measured
            )


def counts_of(path: Path, *made_from: Any) -> tuple[list, list]:
    """:func:`diagnose`, or what a run that was stopped had it return."""
    if not path.is_file():
        counted = diagnose(*made_from)
        if not ranks.place()[0]:
            with whole_file(path) as part:
                part.write_text(json.dumps(counted))
        ranks.wait()
    return json.loads(path.read_text())


def write(
    output: Path,
    topics: trec.Topics,
    counted: Mapping[str, tuple[list, list]],
    measured: Mapping[str, Mapping[str, Mapping[int, float]]],
) -> None:
    """Write the folder, and print its table.

    Args:
        output: the folder.
        topics: that were looked at.
        counted: by system, what :func:`diagnose` returned.
        measured: by training, its curves.
    """
    errors, standing = ({name: of[n] for name, of in counted.items()} for n in (0, 1))
    negatives = any(of for listed in standing.values() for of in listed)
    found = {"errors": {name: summary(of) for name, of in errors.items()}}
    if negatives:
        found["negatives"] = {name: drift(of) for name, of in standing.items()}
    text = "\n\n".join(f"{title}\n{table(rows)}" for title, rows in found.items())
    if measured:
        found["curves"] = measured
        text = f"{text}\n\n{MEANWHILE}\n\n{curves.table(measured)}"
    with whole_folder(output, REPORT, also=OTHERS) as part:
        (part / REPORT).write_text(json.dumps(found, indent=2) + "\n")
        (part / TABLE).write_text(f"{text}\n")
        with (part / PAIRS).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["system", "qid", "docid", "errors"])
            for name, of in errors.items():
                for qid, pairs in zip(topics, of, strict=True):
                    writer.writerows([name, qid, d, t] for d, t in pairs.items())
        if measured:
            with (part / CURVES).open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["system", "measure", "step", "value"])
                for name, of in measured.items():
                    for measure, curve in of.items():
                        points = curve.items()
                        writer.writerows([name, measure, *point] for point in points)
        figures.draw(part, errors, standing if negatives else {}, measured)
    print(text)


def main() -> None:
    """Diagnose from the command line."""
    parser = cli.parser("dense_hn.diagnose", __doc__)
    parser.add_argument(
        "--system",
        nargs=3,
        action="append",
        metavar=("NAME", "ENCODER", "VECTORS"),
        help="may be given several times",
    )
    parser.add_argument("--topics", help="TSV, TREC or JSON")
    parser.add_argument("--qrels", help="for them")
    parser.add_argument("--folder", type=Path, help="that a recipe ran in")
    parser.add_argument("--recipe", default="", help="where several ran: which")
    parser.add_argument("--split", default="train", help="its topics (train)")
    parser.add_argument(
        "--relevance_level", type=int, default=1, help="relevant from (1)"
    )
    parser.add_argument("--negatives", help="TREC run of static negatives for them")
    parser.add_argument(
        "--log",
        nargs=2,
        action="append",
        metavar=("NAME", "FILE"),
        help="NAME.log.jsonl of a training with --eval_strategy; several times",
    )
    parser.add_argument("--depth", type=int, default=200, help="of that run (200)")
    parser.add_argument("--sample", type=int, help="look at so many of the topics")
    parser.add_argument("--seed", type=int, default=42, help="of the sample (42)")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    ranks.start()
    run(args)


if __name__ == "__main__":
    cli.run(main)
