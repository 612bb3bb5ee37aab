"""Whether training on a collection is valid, before any is done.

    python -m dense_hn.check beir:path/to/scifact --runs runs/bm25.train.txt
    python -m dense_hn.check nl2bash --output report.json

A source KIND:VALUE (python -m dense_hn.collections --help lists them) is checked as it
is. Of a recipe, named or a YAML file, what it trains on is checked, its collection without what is
left out when one is made, and whether training would begin here and now.

A finding is a line: error, warning, information or ok, how many, of what; the first five
are shown. Errors make training or evaluation invalid:

* topics of train that stand in another split, by id or word for word, whatever the case;
* qrels' ids that are in no topics, docids of qrels and runs that are in no corpus, a run of
  other topics alone;
* settings of a recipe, or what it needs, that training refuses before it begins;
* in a folder, training topics without a relevant document, which training refuses.

Warnings are for a person to judge: relevant passages that train shares with another
split, and whether dev shares many more, or fewer, than test; passages that (nearly)
repeat a relevant one and are not judged relevant; topics of a run that are none of the
collection's; query texts that stand in two evaluated
splits or in their own relevant passages; ids that Pyserini changes; training topics
without hits in a run.

The collection is held in memory, and near-duplicates are looked for exactly, in about
0.1 ms a passage and 64 bytes a word of the relevant passages (dense_hn/check/near.py):
for the 8.8 million passages of MS MARCO, 500,000 of them relevant, in a quarter of an
hour and 2 GB.

The exit status is 0 where there is no error, 1 where there is, 2 where nothing could be
checked.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from dense_hn import DenseHNError, cli, document_vector, trec
from dense_hn.check import duplicates, ids, overlap, texts
from dense_hn.check.figures import figures
from dense_hn.check.report import ERROR, INFORMATION, WARNING, Finding, Report
from dense_hn.collections import collection, sources
from dense_hn.collections.collection import Collection
from dense_hn.encoder import DenseEncoder
from dense_hn.files import require_file_or_none, whole_file


def read(source: str) -> tuple[str, Collection]:
    """The kind of a source, and the collection to be checked.

    Args:
        source: KIND:VALUE, or a recipe.

    Raises:
        DenseHNError: no such source, or it cannot be read.
    """
    if ":" in source:
        kind, value = sources.parse(source)
        return kind, sources.read(kind, value)
    # Only here: it brings all that trains.
    from dense_hn.train import recipe

    try:
        section = recipe.read(source).collection
    except DenseHNError:
        if source.endswith((".yaml", ".yml")) or not Path(source).exists():
            raise
        raise DenseHNError(
            f"{source}: what kind of collection is it? say {sources.FOLDER}:{source}, "
            f"beir:{source} or another of those that python -m dense_hn.collections "
            "--help lists"
        ) from None
    found = sources.read(section.kind, section.value)
    if section.kind != sources.FOLDER:
        collection.prepare(found)
    return section.kind, found


def refused(recipe_file: str) -> str:
    """What training with a recipe would refuse, here and now; empty for nothing."""
    from dense_hn.train import pipeline, recipe

    try:
        pipeline.Pipeline(recipe.read(recipe_file), Path())
    except DenseHNError as error:
        return str(error)
    return ""


def check(
    source: str,
    kind: str,
    found: Collection,
    runs: dict[str, trec.Run],
    encoder: DenseEncoder | None,
    stopped: str = "",
) -> Report:
    """Look for everything.

    Args:
        source: as it was named, for the report.
        kind: of the source.
        found: the collection.
        runs: by name.
        encoder: counts tokens, if there is one.
        stopped: what training would refuse; empty for nothing.
    """
    findings = [*_findings(kind, found, runs), *_of_encoder(found, encoder)]
    if stopped:
        what = f"setting or file, at least, that training refuses: {stopped}"
        findings.append(Finding(name="recipe", severity=ERROR, count=1, what=what))
    return Report(
        source=source,
        findings=findings,
        figures=figures(found, encoder),
    )


def _findings(
    kind: str, found: Collection, runs: dict[str, trec.Run]
) -> Iterator[Finding]:
    # Building a collection leaves unusable topics out; a folder is trained on as it is.
    unusable = ERROR if kind == sources.FOLDER else WARNING
    yield from ids.of_collection(found, unusable)
    for name, run in runs.items():
        yield from ids.of_run(found, name, run)
    yield from overlap.findings(found)
    yield from duplicates.findings(found)
    yield from texts.findings(found)
    for what, number in found.left_out.items():
        if number:
            yield Finding(
                name=f"left out: {what}",
                severity=INFORMATION,
                count=number,
                what=f"{what}, left out",
            )


def _of_encoder(found: Collection, encoder: DenseEncoder | None) -> Iterator[Finding]:
    """Whether documents' vectors can be added to those of their passages."""
    if encoder is None or not encoder.settings.document_weight:
        return
    name, severity, several = "passages of documents", INFORMATION, 0
    what = "documents of several passages, whose vectors are added to them"
    try:
        several = document_vector.require_together(found.corpus)
    except DenseHNError as error:
        severity, what = ERROR, str(error)
    else:
        if not several:
            severity = WARNING
            what += ": document_weight changes nothing"
    yield Finding(name=name, severity=severity, count=several, what=what)


def main() -> None:
    """Check a collection from the command line."""
    parser = cli.parser("dense_hn.check", __doc__)
    parser.add_argument("source", help="KIND:VALUE, or a recipe")
    parser.add_argument("--runs", nargs="+", default=[], help="TREC runs of its topics")
    parser.add_argument(
        "--encoder", help="encoder folder or hub name: counts its tokens"
    )
    parser.add_argument("--output", type=Path, help="report to write, JSON")
    args = parser.parse_args()
    if args.output:
        require_file_or_none(args.output)
    runs = {path: trec.read_run(path) for path in args.runs}
    encoder = DenseEncoder.load(args.encoder) if args.encoder else None
    found = read(args.source)
    stopped = "" if ":" in args.source else refused(args.source)
    report = check(args.source, *found, runs, encoder, stopped)
    if args.output:
        with whole_file(args.output) as partial:
            text = json.dumps(report.json(), indent=2, ensure_ascii=False)
            partial.write_text(f"{text}\n", encoding="utf-8")
    print(report.text())
    sys.exit(not report.valid)


if __name__ == "__main__":
    cli.run(main)
