"""mixing.md's commands, as written, and their index in Pyserini."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from replay import run_here

from dense_hn import trec
from dense_hn.collections.corpus import write_corpus
from dense_hn.encode import encode_texts
from dense_hn.encoder import DenseEncoder

PAGE = Path(__file__).with_name("mixing.md")
MODELS = Path("work/mine/models")


def moved(bert, seed: int, searches: str = "") -> DenseEncoder:
    """The encoder with weights some way from where they were."""
    encoder = DenseEncoder.load(str(bert), passage_encoder=searches)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return encoder


def between(bert, other: DenseEncoder) -> DenseEncoder:
    """Half of both."""
    encoder = DenseEncoder.load(str(bert))
    with torch.no_grad():
        pairs = zip(encoder.parameters(), other.parameters(), strict=True)
        for weight, more in pairs:
            weight.copy_((weight + more) / 2)
    return encoder


def test_the_pages_commands(tmp_path, bert, corpus, topics, pyserini_here, monkeypatch):
    """The run is of the mean weights' vectors, and Pyserini finds it in the index."""
    monkeypatch.chdir(tmp_path)
    star = moved(bert, 1)
    adore = moved(bert, 2, star.digest())
    for name, encoder in (
        ("base", DenseEncoder.load(str(bert))),
        ("star", star),
        ("adore", adore),
    ):
        encoder.save(MODELS / name)
    write_corpus(Path("other/corpus.jsonl"), corpus)
    trec.write_topics(Path("other/topics.tsv"), topics)
    text = PAGE.read_text().split("## Does it help?")[0]
    commands = re.findall(r"^python -m (.*)$", text, re.MULTILINE)
    *first, several = map(shlex.split, commands)
    for module, *arguments in first:
        run_here(module, arguments)
    assert several[0] == first[0][0] == "dense_hn.mix"
    expected = (
        encode_texts(between(bert, adore), list(topics.values()), "query").double()
        @ encode_texts(between(bert, star), list(corpus.values()), "passage").double().T
    )
    flags = "--encoder-class auto --encoder mixed/adore --pooling mean --l2-norm"
    flags += " --index mixed/index --topics other/topics.tsv --output found.txt"
    run_here("dense_hn.pyserini", ["search.faiss", *flags.split()])
    for path in ("mixed/adore.txt", "found.txt"):
        run = trec.read_run(path)
        for qid, scores in zip(topics, expected, strict=True):
            of = dict(zip(corpus, scores.tolist(), strict=True))
            assert len(run[qid]) == len(corpus)
            assert run[qid] == pytest.approx(of, abs=1e-4)
