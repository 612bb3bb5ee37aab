"""The first hits of any run in the order of a cross-encoder, as a TREC run.

    python -m dense_hn.rerank --model DIR --first_stage RUN --topics topics.tsv \\
        --corpus corpus.jsonl --depth 10 100 --output OUT

The first ``--depth`` hits of a topic get the cross-encoder's scores and their order; the
others stay behind them in the order that they had, so that recall below the depth is what
it was (their scores only say that order). Of several depths, whose runs are OUT-10 and
OUT-100, the deepest scores each pair once for all. Without ``--depth`` all hits are scored.

With ``--qrels`` the run is a teacher's, for training alone: it lists the first ``--depth``
hits and all relevant documents, every one with the cross-encoder's score, and nothing else.

A run that is there, made from the same weights, run, topics and corpus, is left as it is;
one that was stopped goes on with the topics that are missing. Started with
``torchrun --nproc_per_node N -m dense_hn.rerank …``, N processes score a part of the
topics each.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from tqdm import tqdm

from dense_hn import DenseHNError, __version__, cli, costs, provenance, ranks, trec
from dense_hn.collections.corpus import read_corpus
from dense_hn.cross_encoder import CrossEncoder
from dense_hn.encode import HALVES, add_halves
from dense_hn.files import digest, forget_parts
from dense_hn.ids import require_id

log = logging.getLogger("dense_hn")

# Topics whose pairs are tokenised and sorted by length together, and then kept.
TOPICS = 16


@torch.no_grad()
def score(
    cross: CrossEncoder,
    pairs: Sequence[tuple[str, str]],
    progress: tqdm,
    half: str | None = None,
) -> list[float]:
    """The scores of pairs (query, passage), in their order.

    Args:
        cross: which cross-encoder.
        pairs: all are tokenised at once; pairs of similar length go through the model
            together, the longest first, so that what memory is needed shows at once.
        progress: is told of every pair.
        half: ``fp16`` or ``bf16``, what the layers compute in instead of float32.

    Raises:
        DenseHNError: a score that is not finite.
    """
    cross.model.eval()
    device = cross.model.device
    with costs.part("tokenise"):
        batch = cross.batch(pairs)
    cast = torch.autocast(device.type, HALVES[half]) if half else nullcontext()
    scores = []
    with costs.part("score"), cast:
        for one in reversed(batch["slices"]):
            one = {name: tensor.to(device) for name, tensor in one.items()}
            places = torch.arange(len(one["input_ids"]), device=device)
            scores.append(cross.forward([one], places))
            progress.update(len(places))
        found = torch.cat(scores[::-1]).cpu()[batch["places"]]
    if not found.isfinite().all():
        query, _ = pairs[int((~found.isfinite()).nonzero()[0])]
        raise DenseHNError(
            f"a score of the query {query[:80]!r} is not a finite number; leave out --fp16 "
            "if it was given, else look at the cross-encoder"
        )
    return found.tolist()


def reordered(
    hits: Mapping[str, float], scores: Mapping[str, float], depth: int | None
) -> dict[str, float]:
    """Hits of a topic with the first ``depth`` of them in the order of other scores.

    Args:
        hits: ``{docid: score}`` of a run.
        scores: of the first ``depth`` hits at least.
        depth: None for all hits.

    Returns:
        The first hits with ``scores``'; the others, in the order that they had, with
        numbers 1, 2, … below the lowest of these.
    """
    old = trec.ranked(hits)
    first = {docid: scores[docid] for docid in old[:depth]}
    lowest = min(first.values())
    behind = old[len(first) :]
    return first | {docid: lowest - n for n, docid in enumerate(behind, 1)}


def rerank(
    cross: CrossEncoder,
    run_path: str | Path,
    topics_path: str | Path,
    corpus_path: str | Path,
    output: str | Path,
    depths: Sequence[int] = (),
    tag: str = "dense_hn",
    qrels_path: str | Path | None = None,
    half: str | None = None,
) -> None:
    """Write the re-ranked run of each depth, and what it was made from, beside it.

    Args:
        cross: scores pairs.
        run_path: of whichever system.
        topics_path: texts of its topics; topics that the run lacks are counted.
        corpus_path: texts of its documents.
        output: run to write; of several depths, see :func:`output_of`.
        depths: from 1; none for all hits.
        tag: last column.
        qrels_path: judgements whose relevant documents are scored, too, for a teacher.
        half: as :func:`score`'s.

    Raises:
        DenseHNError: before anything is scored: a file that cannot be read, a topic of
            the run without a text, a docid that is not in the corpus, a depth below 1 or
            given twice, a tag that is no word, several depths for a teacher, half precision without a GPU, a
            file in the run's place that is none, or that is the run to re-rank.
    """
    require_depths(depths)
    require_id(tag, "tag", str(output))
    if qrels_path and len(depths) > 1:
        raise DenseHNError("--qrels makes the run of one teacher; give one --depth")
    if half and cross.model.device.type == "cpu":
        raise DenseHNError(f"--{half} is for a GPU, and there is none; leave it out")
    outputs = {
        depth: output_of(output, depth) if len(depths) > 1 else Path(output)
        for depth in depths or [None]
    }
    for path in outputs.values():
        trec.require_no_other(path)
        if path.resolve() == Path(run_path).resolve():
            raise DenseHNError(f"{path}: would replace the run that it is made from")
    topics, run = trec.read_topics(topics_path), trec.read_run(run_path)
    trec.require_covered(run, topics, run_path, topics_path, "text")
    trec.tell_uncovered(topics, run, topics_path, run_path, "hit")
    corpus = read_corpus(corpus_path)
    trec.require_known(run, corpus, run_path, corpus_path)
    qrels = trec.read_qrels(qrels_path) if qrels_path else {}
    trec.require_known(qrels, corpus, qrels_path or "", corpus_path)
    made_from = {
        "cross_encoder": cross.digest(),
        "run": digest(run_path),
        "topics": digest(topics_path),
        "corpus": corpus.digest,
        "qrels": qrels_path and digest(qrels_path),
        "half": half,
        "tag": tag,
    }
    missing = {
        depth: path
        for depth, path in outputs.items()
        if not provenance.is_made_from(path, {**made_from, "depth": depth})
    }
    rank, _ = ranks.place()
    if not missing:
        log.info("%s is there, made from the same run and cross-encoder", output)
        if not rank:
            forget_parts(output)
        return
    deepest = None if None in missing else max(missing)
    if qrels_path:
        run = _taught(run, qrels, deepest)
        judged = {qid for qid in run if trec.positives(qrels, qid)}
        trec.tell_uncovered(run, judged, run_path, qrels_path, "relevant document")
    wanted = {
        qid: trec.ranked(hits)[: None if qrels_path else deepest]
        for qid, hits in run.items()
    }
    qids = list(run)
    pairs = [
        {qid: wanted[qid] for qid in qids[n : n + TOPICS]}
        for n in range(0, len(qids), TOPICS)
    ]
    parted = {**made_from, "depth": deepest, "topics_of_a_part": TOPICS}
    parted["dense_hn"] = __version__
    with costs.Costs() as spent, ranks.parts(output, parted) as parts:
        _score_parts(cross, parts, pairs, topics, corpus, half, tag)
        if not rank:
            for depth, path in missing.items():
                cut = None if qrels_path else depth
                trec.write_run(path, _rows(run, parts, pairs, cut), tag)
    if not rank:
        for depth, path in missing.items():
            provenance.record(path, {**made_from, "depth": depth}, spent.facts())


def _taught(run: trec.Run, qrels: trec.Qrels, depth: int | None) -> trec.Run:
    """What a teacher scores: a topic's first hits, and all that is relevant to it."""
    return {
        qid: dict.fromkeys(
            [*trec.ranked(hits)[:depth], *trec.positives(qrels, qid)], 0.0
        )
        for qid, hits in run.items()
    }


def _rows(
    run: trec.Run,
    parts: Path,
    pairs: Sequence[Mapping[str, Sequence[str]]],
    depth: int | None,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Each topic's hits in the order of the scores that are in the parts."""
    for number, group in enumerate(pairs):
        scores = trec.read_run(parts / str(number))
        for qid in group:
            yield qid, reordered(run[qid], scores[qid], depth)


def _score_parts(
    cross: CrossEncoder,
    folder: Path,
    pairs: Sequence[Mapping[str, Sequence[str]]],
    topics: Mapping[str, str],
    corpus: Mapping[str, str],
    half: str | None,
    tag: str,
) -> None:
    """Score this process's share of ``{qid: docids}``, each into a run by its number.

    What an earlier call has written is left as it is.
    """
    rank, processes = ranks.place()
    own = list(enumerate(pairs))[rank::processes]
    todo = {folder / str(n): part for n, part in own if not (folder / str(n)).is_file()}
    # Before there are more.
    ranks.wait()
    total = sum(len(docids) for part in todo.values() for docids in part.values())
    with tqdm(total=total, desc="Scoring pairs", unit=" pairs") as progress:
        for path, part in todo.items():
            keys = [(qid, docid) for qid, docids in part.items() for docid in docids]
            texts = [(topics[qid], corpus[docid]) for qid, docid in keys]
            found: trec.Run = {}
            for (qid, docid), value in zip(
                keys, score(cross, texts, progress, half), strict=True
            ):
                found.setdefault(qid, {})[docid] = value
            trec.write_run(path, found, tag)
    ranks.wait()


def rerank_together(
    cross: CrossEncoder,
    runs: Mapping[str, trec.Run],
    topics_path: str | Path,
    corpus_path: str | Path,
    depths: Sequence[int],
    scores_path: Path,
    half: str | None = None,
) -> Iterator[tuple[str, int, trec.Run]]:
    """Re-rank several systems, whose common pairs are scored once.

    Args:
        cross: scores pairs.
        runs: of the systems, by name.
        topics_path: as :func:`rerank`'s.
        corpus_path: as there.
        depths: one at least.
        scores_path: run of all that is scored, from which a stopped call goes on; beside
            it, ``NAME-pairs`` says what that is.
        half: as :func:`score`'s.

    Returns:
        (name, depth, re-ranked run), as :func:`reordered` makes it.

    Raises:
        DenseHNError: as :func:`rerank`, before the first.
    """
    require_depths(depths)
    wanted: dict[str, dict[str, None]] = {}
    for run in runs.values():
        for qid, hits in run.items():
            first = dict.fromkeys(trec.ranked(hits)[: max(depths)])
            wanted[qid] = wanted.get(qid, {}) | first
    pairs = scores_path.with_name(f"{scores_path.stem}-pairs{scores_path.suffix}")
    trec.write_run(
        pairs,
        (
            (qid, {docid: -float(n) for n, docid in enumerate(docids)})
            for qid, docids in wanted.items()
        ),
        "pairs",
    )
    rerank(cross, pairs, topics_path, corpus_path, scores_path, half=half)
    scores = trec.read_run(scores_path)
    for name, run in runs.items():
        for depth in depths:
            new = {q: reordered(hits, scores[q], depth) for q, hits in run.items()}
            yield name, depth, new


def require_depths(depths: Sequence[int]) -> None:
    """Check that these are ranks, each once.

    Raises:
        DenseHNError: they are not.
    """
    if min(depths, default=1) < 1 or len({*depths}) < len(depths):
        raise DenseHNError(f"the depths are {[*depths]}: numbers from 1, each once")


def output_of(output: str | Path, depth: int) -> Path:
    """The run of one of several depths: ``runs/star.txt`` to ``runs/star-100.txt``."""
    path = Path(output)
    return path.with_name(f"{path.stem}-{depth}{path.suffix}")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Let a command line say which cross-encoder scores, and how it computes."""
    parser.add_argument(
        "--model", required=True, help="cross-encoder: folder or hub name"
    )
    parser.add_argument(
        "--length", type=int, help="tokens of a pair, if not the cross-encoder's own"
    )
    add_halves(parser)


def main() -> None:
    """Re-rank a run from the command line."""
    parser = cli.parser("dense_hn.rerank", __doc__)
    add_model(parser)
    # Not --run, which torchrun takes for its own --run-path.
    parser.add_argument(
        "--first_stage", required=True, help="TREC run, of whichever system"
    )
    parser.add_argument("--topics", required=True, help="TSV, TREC or JSON")
    parser.add_argument("--corpus", required=True, help="JSONL, TSV or a folder")
    parser.add_argument(
        "--depth",
        type=int,
        nargs="+",
        default=(),
        help="hits of a topic that are re-ranked, or several such numbers (default: all)",
    )
    parser.add_argument(
        "--qrels",
        help="TREC qrels: score their relevant documents, too, and list nothing else than "
        "what was scored: a teacher's run",
    )
    parser.add_argument("--output", required=True, help="run file to write")
    parser.add_argument("--tag", default="dense_hn", help="last column of the run")
    args = parser.parse_args()
    ranks.start()
    rerank(
        CrossEncoder.load(args.model, args.length),
        args.first_stage,
        args.topics,
        args.corpus,
        args.output,
        args.depth,
        args.tag,
        args.qrels,
        args.half,
    )


if __name__ == "__main__":
    cli.run(main)
