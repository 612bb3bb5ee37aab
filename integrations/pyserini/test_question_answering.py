"""question-answering.md's commands for Natural Questions, as written, on small files."""

import gzip
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import pytrec_eval
from replay import run_here

from dense_hn import trec
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.train import recipe
from dense_hn.train.places import Places

PAGE = Path(__file__).with_name("question-answering.md")


def commands() -> list[list[str]]:
    """The words of every command in the block, without `python -m`."""
    block = PAGE.read_text().partition("## Natural Questions")[2].split("```")[1]
    return [shlex.split(line)[2:] for line in block.strip().splitlines()]


def test_every_command(tmp_path, bert, corpus, topics, qrels, monkeypatch, capsys):
    """The answer to `where is a lamp , red` is `Red Lamp`, which one passage holds."""
    encoder = DenseEncoder.load(str(bert))
    nq = recipe.read("nq")
    places = Places(nq, tmp_path, nq.encoder["architecture"])
    for name in ("star", "adore"):
        encoder.save(places.model(name))
    encode_corpus(encoder, corpus, places.vectors("star"))
    called = {f"test-{n}": text for n, text in enumerate(topics.values())}
    trec.write_topics(places.topics("test"), called)
    rows = [f'{docid}\t"{text}"\t{docid}\n' for docid, text in corpus.items()]
    (tmp_path / "psgs_w100.tsv.gz").write_bytes(
        gzip.compress("".join(["id\ttext\ttitle\n", *rows]).encode())
    )
    relevant = [next(iter(judged)) for judged in qrels.values()]
    rows = [
        f"{text}\t{[docid.replace('-', ' ').title(), 'no such']!r}\n"
        for text, docid in zip(topics.values(), relevant, strict=True)
    ]
    (tmp_path / "nq-test.qa.csv").write_text("".join(rows))
    monkeypatch.chdir(tmp_path)

    *ours, (module, *arguments) = commands()
    assert len(ours) == 4
    for name, *words in ours:
        run_here(name, words)
    head, *rows, note = capsys.readouterr().out.splitlines()
    assert head.split() == ["Answer@1", "Answer@5", "Answer@20", "Answer@100"]
    assert note.startswith("24 topics.")
    for row, name in zip(rows, ("star.test", "adore.test"), strict=True):
        run = trec.read_run(f"runs/nq/{name}.txt")
        ranks = [
            trec.ranked(run[qid]).index(docid)
            for qid, docid in zip(called, relevant, strict=True)
            if docid in run[qid]
        ]
        expected = [sum(rank < k for rank in ranks) / 24 for k in (1, 5, 20, 100)]
        values = [float(word) for word in row.split()[1:] if word[0] in "01"]
        assert values == pytest.approx(expected, abs=5.1e-5)
    assert 0 < values[0] < values[1]

    assert module == "pyserini.eval.evaluate_dpr_retrieval"
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    theirs = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert theirs == values


def test_the_kept_runs_give_the_printed_means():
    """What needs no answers of the last table, by trec_eval and by looking at the hits."""
    block = PAGE.read_text().partition("## Measured: fairytaleqa")[2].split("```")[3]
    head, *rows, _ = block.strip("\n").splitlines()
    assert head.split()[:2] == ["nDCG@10", "Success@20"]
    root = PAGE.parents[2]
    qrels = trec.read_qrels(root / "qrels/reference/study/fairytaleqa.txt")
    kept = root / "runs/reference/study/fairytaleqa"
    assert {row.split()[0] for row in rows} == {
        path.name.removesuffix(".txt.gz") for path in kept.glob("*.txt.gz")
    }
    judge = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10"})
    for row in rows:
        name, gain = row.split()[:2]
        run = trec.read_run(kept / f"{name}.txt.gz")
        scored = [one["ndcg_cut_10"] for one in judge.evaluate(run).values()]
        assert gain == f"{sum(scored) / len(qrels):.4f}"
        found = sum(
            any(qrels[qid].get(docid) for docid in hits) for qid, hits in run.items()
        )
        assert all(len(hits) == 20 for hits in run.values())
        assert f" {found / len(qrels):.4f} " in f"{row} "
