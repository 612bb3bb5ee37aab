"""How systems differ, topic by topic, with the rankings where they differ most."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, combinations

from dense_hn import DenseHNError, maxp, trec
from dense_hn.collections.corpus import read_corpus
from dense_hn.evaluate import measures
from dense_hn.evaluate.table import UNTRAINED
from dense_hn.train.places import Places

# Hits of a ranking, and characters of a passage, that are shown.
DEPTH, CHARACTERS = 10, 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the page's comparison is made from; all of it goes into the page as JSON."""

    # The measure that topics are compared by: the table's first.
    measure: str
    # Topic ids with their text.
    topics: list[tuple[str, str]]
    # By system, as the table calls it: a value for each topic.
    values: dict[str, list[float]]
    # By topic, of those that changed most: docids by system, and what is relevant.
    hits: dict[str, dict[str, list[str]]]
    relevant: dict[str, list[str]]
    # Of all passages in these.
    texts: dict[str, str]

    def as_json(self) -> str:
        """For a script element of a page: nothing in it ends that element."""
        return json.dumps(asdict(self), ensure_ascii=False).replace("<", "\\u003c")


def compare(places: Places, most: int) -> Comparison:
    """Score the runs of a recipe's table again, topic by topic.

    Args:
        places: of a recipe that ran to its end.
        most: topics that gained most, and that lost most, whose rankings are kept, for
            every two systems.

    Raises:
        DenseHNError: there is no table, or the runs give other numbers than it has.
    """
    path = places.table.with_suffix(".json")
    if not path.is_file():
        raise DenseHNError(
            f"{path}: no table; run `python -m dense_hn.train {places.ran}` to its end"
        )
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    measure = next(iter(rows[0]["cells"]))
    qrels = trec.read_qrels(places.qrels)
    named = {title: system for system, title in UNTRAINED.items()}
    values, first = {}, {}
    for row in rows:
        name = row["name"]
        run_file = places.hits(named.get(name, name), places.split)
        run = trec.read_run(run_file)
        scored = measures.per_query(qrels, run, [measure])[measure]
        mean, told = sum(scored.values()) / len(scored), row["cells"][measure]["mean"]
        if abs(mean - told) > 1e-9:
            raise DenseHNError(
                f"{run_file}: {measure} is {mean:.4f}, and {path} says {told:.4f}: the "
                f"run has changed; run `python -m dense_hn.train {places.ran}`"
            )
        values[name] = [scored[qid] for qid in qrels]
        first[name] = {qid: trec.ranked(run.get(qid, {}))[:DEPTH] for qid in qrels}
    asked = places.topics(places.split)
    texts = trec.read_topics(asked)
    trec.require_covered(qrels, texts, places.qrels, asked, "text")
    kept = [list(qrels)[place] for place in changed(values, most)]
    hits = {qid: {name: of[qid] for name, of in first.items()} for qid in kept}
    relevant = {qid: trec.positives(qrels, qid) for qid in kept}
    corpus = read_corpus(places.corpus)
    if places.max_passage:
        corpus = maxp.starts(corpus)
    listed = {
        qid: dict.fromkeys(chain(relevant[qid], *hits[qid].values())) for qid in kept
    }
    trec.require_known(listed, corpus, places.runs, places.corpus)
    shown = dict.fromkeys(chain.from_iterable(listed.values()))
    return Comparison(
        measure=measure,
        topics=[(qid, texts[qid]) for qid in qrels],
        values={name: [round(v, 8) for v in of] for name, of in values.items()},
        hits=hits,
        relevant=relevant,
        texts={docid: cut(corpus[docid]) for docid in shown},
    )


def changed(values: Mapping[str, Sequence[float]], most: int) -> list[int]:
    """Places of the topics that differ most, in order.

    Args:
        values: by system, a value for each topic.
        most: topics that are better, and that are worse, for every two systems.
    """
    found: set[int] = set()
    for one, other in combinations(values.values(), 2):
        for better, worse in ((one, other), (other, one)):
            gains = {
                place: a - b
                for place, (a, b) in enumerate(zip(better, worse, strict=True))
                if a > b
            }
            found.update(sorted(gains, key=lambda place: -gains[place])[:most])
    return sorted(found)


def cut(text: str) -> str:
    """The start of a long text, which then ends in an ellipsis."""
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS].rstrip()}…"
