"""Topics, qrels and runs: read, validate, order, write.

In memory they are plain dictionaries in file order, as pytrec_eval takes them:

* topics  ``{qid: text}``
* qrels   ``{qid: {docid: relevance}}``
* run     ``{qid: {docid: score}}``

Formats: topics are Pyserini's TSV (``qid<TAB>text``; what else is read stands in
dense_hn.topic_formats), qrels and runs are trec_eval's (4 columns; 6 columns), qrels also
BEIR's (3 columns under a header); each is read gzipped, too, where the name ends in
``.gz``.
"""

import json
import logging
import math
import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

import numpy as np

from dense_hn import DenseHNError, topic_formats
from dense_hn.files import require_file_or_none, whole_file
from dense_hn.ids import require_columns, require_id
from dense_hn.reading import lines, require_unicode

log = logging.getLogger("dense_hn")

Topics = dict[str, str]
Qrels = dict[str, dict[str, int]]
Run = dict[str, dict[str, float]]

# The columns of BEIR's qrels, and their header.
BEIR_QRELS = "query-id corpus-id score"
# What Java's String.trim takes off a topic's text, and what Pyserini so reads without.
TRIMMED = "".join(map(chr, range(ord(" ") + 1)))
# A relevance, as trec_eval and Python read it alike.
WHOLE = re.compile("[+-]?[0-9]{1,9}")


def read_topics(path: str | Path) -> Topics:
    """Read topics in one of the formats of dense_hn.topic_formats; texts as in Pyserini.

    Raises:
        DenseHNError: what is not of the file's format, an empty text, a qid that is empty,
            has white space or occurs twice, a file with no topic.
    """
    topics: Topics = {}
    for where, qid, text in topic_formats.rows(path):
        if not text.strip(TRIMMED).strip():
            raise DenseHNError(f"{where}: query {qid!r} has no text; remove it")
        require_id(qid, "query id", where)
        require_unicode(text, where)
        if "\ufeff" in text:
            raise DenseHNError(f"{where}: a byte order mark inside; remove it")
        if qid in topics:
            raise DenseHNError(f"{where}: query id {qid!r} occurs twice; keep one line")
        topics[qid] = text.strip(TRIMMED)
    return _not_empty(topics, path, "topics")


def write_topics(path: str | Path, topics: Mapping[str, str]) -> None:
    """Write topics as Pyserini's TSV; white space in a text, and a byte order mark, which
    Pyserini would take for a part of a word, becomes one blank."""
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        for qid, text in topics.items():
            words = text.replace("\ufeff", " ").split()
            file.write(f"{qid}\t{' '.join(words)}\n")


def renumbered(qid: str) -> bool:
    """Whether Pyserini makes another id of this one, if its file is not a ``.json``.

    It makes numbers of ids that are all digits: 007 is 7 in its run.
    """
    return qid.isdigit() and not re.fullmatch("0|[1-9][0-9]*", qid)


def for_pyserini(path: str | Path, copy: str | Path) -> Path:
    """A topics file that Pyserini reads as we do: ``path``, or its ``copy``.

    A TSV file goes as it is when Pyserini knows it by its name and leaves its ids alone
    (see :func:`renumbered`). Other formats it may not know, or may take for another
    because of a word in the path, but for ``.json``.

    Args:
        path: topics.
        copy: ``.json`` file that is written for all others.
    """
    topics = read_topics(path)
    named = str(path).removesuffix(".gz").endswith((".tsv", ".txt"))
    if named and topic_formats.kind(path) == "tsv" and not any(map(renumbered, topics)):
        return Path(path)
    with whole_file(copy) as partial, open(partial, "w", encoding="utf-8") as file:
        json.dump({qid: {"title": text} for qid, text in topics.items()}, file)
    return Path(copy)


def read_qrels(path: str | Path) -> Qrels:
    """Read qrels: ``qid iteration docid relevance``, or, under BEIR's header, 3 columns.

    A judgement that stands there twice counts once (MS MARCO's training qrels have
    such lines); their number is logged.

    Raises:
        DenseHNError: a line with another number of columns, a relevance that is no whole
            number, two different judgements of a document, a file with no judgement.
    """
    qrels: Qrels = {}
    form, twice = "qid 0 docid relevance", 0
    for number, (where, line) in enumerate(lines(path, "qrels")):
        columns = line.split()
        if number == 0 and columns == BEIR_QRELS.split():
            form = BEIR_QRELS
            continue
        if len(columns) != len(form.split()):
            raise DenseHNError(
                f"{where}: expected {len(form.split())} columns `{form}`, "
                f"got {len(columns)}"
            )
        require_columns(line, where)
        qid, docid, relevance = columns[0], *columns[-2:]
        if not WHOLE.fullmatch(relevance):
            raise DenseHNError(
                f"{where}: relevance {relevance[:80]!r} is not a whole number (of nine "
                "digits at most)"
            )
        level = int(relevance)
        judged = qrels.setdefault(qid, {})
        if docid in judged:
            twice += 1
        if judged.setdefault(docid, level) != level:
            raise DenseHNError(
                f"{where}: {docid!r} is judged {judged[docid]} and {level} for query "
                f"{qid!r}; keep one line"
            )
    if twice:
        log.warning("%s: %d judgements stand there twice", path, twice)
    return _not_empty(qrels, path, "qrels")


def write_qrels(path: str | Path, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write trec_eval's qrels."""
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        for qid, judged in qrels.items():
            file.writelines(
                f"{qid} 0 {docid} {relevance}\n" for docid, relevance in judged.items()
            )


def read_run(path: str | Path) -> Run:
    """Read a TREC run: ``qid Q0 docid rank score tag``.

    Ranks are ignored, as in trec_eval. That is told where two neighbouring lines of a
    topic have them the other way round than the scores.

    Raises:
        DenseHNError: a line without six columns, a score that is no finite number,
            a document listed twice for a query, a file with no hit.
    """
    run: Run = {}
    # Of the line above.
    query, place, height = "", 0, 0.0
    first, contradicting = "", 0
    for where, line in lines(path, "run"):
        columns = line.split()
        if len(columns) != 6:
            raise DenseHNError(
                f"{where}: expected 6 columns `qid Q0 docid rank score tag`, "
                f"got {len(columns)}"
            )
        require_columns(line, where)
        qid, _, docid, rank, score, _ = columns
        hits = run.setdefault(qid, {})
        if docid in hits:
            raise DenseHNError(
                f"{where}: {docid!r} is listed twice for query {qid!r}; keep one line"
            )
        try:
            hits[docid] = value = float(score)
        except ValueError:
            hits[docid] = value = math.nan
        # Python reads 1_0 and other alphabets' digits; no other program does.
        if not math.isfinite(value) or "_" in score or not score.isascii():
            raise DenseHNError(f"{where}: score {score[:80]!r} is not a finite number")
        number = int(rank) if WHOLE.fullmatch(rank) else 0
        # Rank and score both go up, or both go down.
        if qid == query and (number - place) * (value - height) > 0:
            first = first or where
            contradicting += 1
        query, place, height = qid, number, value
    if contradicting:
        log.warning(
            "%s: the ranks of this line and the one above contradict their scores, as on "
            "%d lines of the file; ranks are ignored",
            *(first, contradicting),
        )
    return _not_empty(run, path, "run")


def write_run(
    path: str | Path,
    run: Mapping[str, Mapping[str, float]] | Iterable[tuple[str, Mapping[str, float]]],
    tag: str,
) -> None:
    """Write a TREC run, best hit first, with strictly decreasing scores.

    Args:
        path: run file to write.
        run: a run, or its (qid, hits) one after another, so that a long run need not be
            in memory.
        tag: the last column.

    Raises:
        DenseHNError: as :func:`require_no_other`; a tag that is no word.

    trec_eval keeps scores as 32-bit floats and orders ties by docid, so scores that
    tie at that precision are moved down, just enough to stay apart in six decimals
    and in 32 bits: what is written is scored in the order in which it is written.
    """
    require_no_other(path)
    require_id(tag, "tag", str(path))
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        for qid, hits in run.items() if isinstance(run, Mapping) else run:
            above = None
            for rank, docid in enumerate(ranked(hits), 1):
                score = round(hits[docid], 6)
                if above is not None:
                    apart = max(1e-6, 2 * float(np.spacing(np.float32(abs(above)))))
                    score = min(score, above - apart)
                above = score
                file.write(f"{qid} Q0 {docid} {rank} {score:.6f} {tag}\n")


def require_no_other(path: str | Path) -> None:
    """Check that a run may be written there.

    Raises:
        DenseHNError: as files.require_file_or_none; a file that is no run.
    """
    if require_file_or_none(path).is_file():
        with open(path, "rb") as file:
            first = file.readline()
        if first and len(first.split()) != 6:
            raise DenseHNError(
                f"{path}: is no run, and would be replaced by one; name another file"
            )


def ranked(hits: Mapping[str, float]) -> list[str]:
    """Docids in trec_eval's order: score as a 32-bit float, ties by docid descending."""
    scores = np.fromiter(hits.values(), np.float32, len(hits)).tolist()
    order = sorted(zip(scores, hits, strict=True), reverse=True)
    return [docid for _, docid in order]


def positives(qrels: Mapping[str, Mapping[str, int]], qid: str) -> list[str]:
    """The docids judged relevant (1 or more) for a query, in file order."""
    return [docid for docid, level in qrels.get(qid, {}).items() if level > 0]


def at_level(qrels: Mapping[str, Mapping[str, int]], level: int) -> Qrels:
    """The same judgements, those below ``level`` turned to 0 (not relevant)."""
    return {
        qid: {docid: grade if grade >= level else 0 for docid, grade in judged.items()}
        for qid, judged in qrels.items()
    }


def read_judged(
    topics_path: str | Path, qrels_path: str | Path, level: int = 1
) -> tuple[Topics, Qrels]:
    """Read training topics and their qrels; every topic needs a relevant document.

    Args:
        topics_path: as :func:`read_topics` takes them.
        qrels_path: as :func:`read_qrels` takes them.
        level: judgements from it on are relevant; those below come back as 0.

    Raises:
        DenseHNError: a line that cannot be read, or a topic without a relevant document.
    """
    topics, qrels = read_topics(topics_path), at_level(read_qrels(qrels_path), level)
    judged = {qid for qid in topics if positives(qrels, qid)}
    require_covered(topics, judged, topics_path, qrels_path, "relevant document")
    return topics, qrels


def require_known(
    docids: Mapping[str, Mapping[str, object]],
    corpus: Container[str],
    path: str | Path,
    corpus_path: str | Path,
) -> None:
    """Check that every docid of a qrels or run read from ``path`` is in the corpus.

    Raises:
        DenseHNError: names the first unknown docid, its query, and how many there are.
    """
    strange = {d for d in set().union(*docids.values()) if d not in corpus}
    if strange:
        unknown = [(q, d) for q, row in docids.items() for d in row if d in strange]
        qid, docid = unknown[0]
        raise DenseHNError(
            f"{path}: docid {docid!r} (query {qid!r}) is not in {corpus_path}; "
            f"{len(unknown)} such lines; use the corpus that this file was made for, or "
            "remove them"
        )


def require_covered(
    topics: Mapping[str, str],
    covered: Container[str],
    topics_path: str | Path,
    path: str | Path,
    what: str,
) -> None:
    """Check that every topic has its ``what`` (positives, negatives) in ``path``.

    Raises:
        DenseHNError: names the first topic without, and how many there are.
    """
    missing = [qid for qid in topics if qid not in covered]
    if missing:
        raise DenseHNError(
            f"{topics_path}: query {missing[0]!r} has no {what} in {path}; "
            f"{len(missing)} of {len(topics)} have none; "
            + (
                f"remove them from {topics_path}, or make {path} for them"
                if len(missing) < len(topics)
                else "these files are not of the same topics"
            )
        )


def tell_uncovered(
    topics: Mapping[str, str],
    covered: Container[str],
    topics_path: str | Path,
    path: str | Path,
    what: str,
) -> int:
    """Log how many topics lack their ``what``; arguments as in :func:`require_covered`.

    Returns:
        Their number.

    Raises:
        DenseHNError: all lack it.
    """
    missing = [qid for qid in topics if qid not in covered]
    if len(missing) == len(topics):
        require_covered(topics, covered, topics_path, path, what)
    if missing:
        log.warning(
            "%d of %d queries have no %s in %s, such as %r",
            *(len(missing), len(topics), what, path, missing[0]),
        )
    return len(missing)


def _not_empty(table: dict, path: str | Path, what: str) -> dict:
    if not table:
        raise DenseHNError(f"{path}: no {what} in this file")
    return table
