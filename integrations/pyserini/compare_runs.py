"""How far two runs of one system agree.

python integrations/pyserini/compare_runs.py OURS THEIRS --depth 100
"""

import argparse

from dense_hn import cli, trec


def compare(ours: trec.Run, theirs: trec.Run, depth: int) -> dict[str, float]:
    """Compare the first ``depth`` hits of every topic, in trec_eval's order.

    Returns:
        ``topics`` and ``hits`` compared, ``topics_in_one`` and ``docids_in_one`` (found
        in one run only), ``moved`` (hits at another place) and ``largest`` (difference
        of a document's two scores).
    """
    found = dict.fromkeys(("topics", "hits", "docids_in_one", "moved", "largest"), 0)
    found["topics_in_one"] = len(ours.keys() ^ theirs.keys())
    for qid in ours.keys() & theirs.keys():
        mine, other = (trec.ranked(run[qid])[:depth] for run in (ours, theirs))
        both = set(mine) & set(other)
        gaps = [abs(ours[qid][docid] - theirs[qid][docid]) for docid in both]
        found["topics"] += 1
        found["hits"] += len(mine)
        found["docids_in_one"] += len(set(mine) ^ set(other))
        found["moved"] += sum(a != b for a, b in zip(mine, other, strict=False))
        found["largest"] = max(found["largest"], *gaps, 0)
    return found


def main() -> None:
    """Compare two runs from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ours")
    parser.add_argument("theirs")
    parser.add_argument("--depth", type=int, default=100)
    args = parser.parse_args()
    found = compare(trec.read_run(args.ours), trec.read_run(args.theirs), args.depth)
    print(
        "{topics} topics, {hits} hits; topics in one run only: {topics_in_one}; docids "
        "in one run only: {docids_in_one}; hits at another place: {moved}; largest "
        "difference of a score: {largest:.1e}".format(**found)
    )


if __name__ == "__main__":
    cli.run(main)
