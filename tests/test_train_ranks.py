"""Two processes train what one does, with batches of both together."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dense_hn import DenseHNError, trec
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.train import __main__ as train_command
from dense_hn.train import arguments, curves
from dense_hn.train.passages import WholePassages

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
EVALUATE = {"eval_strategy": "steps", "eval_steps": 3, "eval_training_topics": 5}
# As `-m dense_hn.train`, one training after another, as a file lists them; the gradients of
# every step of each go into a file, and the bytes of what the first process has after each
# collective.
SCRIPT = """
import json, os, sys, torch
from torch import distributed
from dense_hn import cli
from dense_hn.export import folder
from dense_hn.train import __main__ as command, trainer

class Keep(trainer.CountUpdates):
    kept = []
    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        super().on_pre_optimizer_step(args, state, control, **kwargs)
        self.kept.append({
            name.removeprefix("module."): weight.grad.clone()
            for name, weight in model.named_parameters() if weight.grad is not None
        } | {
            name.removeprefix("module."): held.clone() for name, held in model.named_buffers()
            if name.endswith("matrix.vectors")
        })

trainer.CountUpdates = Keep
gather, add, had = distributed.all_gather_into_tensor, distributed.all_reduce, []

def counted_gather(output, *args, **kwargs):
    had.append(("gathered", output.nbytes))
    return gather(output, *args, **kwargs)

def counted_add(table, *args, **kwargs):
    had.append(("summed", table.nbytes))
    return add(table, *args, **kwargs)

distributed.all_gather_into_tensor = counted_gather
distributed.all_reduce = counted_add
folder.self_check = lambda *_: "in other tests"
jobs = json.load(open(sys.argv[1]))
for file, words in jobs:
    Keep.kept.clear(), had.clear()
    sys.argv[1:] = words
    cli.run(command.main)
    if os.environ.get("RANK", "0") == "0":
        torch.save({"gradients": Keep.kept, "had": had}, file)
"""
# By what tells them apart: the stage, and its settings.
CASES = {
    # Evaluation is divided, too.
    "star": ("star", {"random_per_query": 1, **EVALUATE}),
    "infonce": ("star", {"star_loss": "infonce", "topics_per_positive": 2}),
    "adore": ("adore", {"random_per_query": 2, "judged_only": True, **EVALUATE}),
    # Plain descent, so that vectors in the matrix age and no rounding is blown up.
    "dynamic": (
        "dynamic",
        {
            "dynamic_hits": 10,
            "slice_passages": 5,
            "optim": "sgd",
            "learning_rate": 0.1,
        },
    ),
    # 256 passages make a codebook.
    "pq": ("adore", {"form": "pq", "pq_m": 4, "train_centroids": True, **EVALUATE}),
    "cross": ("cross", {"random_per_query": 1}),
}


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "train.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def files(files_in, home):
    """The made collection."""
    return files_in(home)


@pytest.fixture(scope="module")
def few(files, home):
    """Files of nine topics: batches of four, four, and one, which one process has."""
    topics = dict(list(trec.read_topics(files["topics"]).items())[:9])
    trec.write_topics(home / "few.tsv", topics)
    qrels = trec.read_qrels(files["qrels"])
    trec.write_qrels(home / "few.qrels", {qid: qrels[qid] for qid in topics})
    return {"topics": home / "few.tsv", "qrels": home / "few.qrels"}


def run(*words, jobs, folder):
    """Run the script with this list of a file and the words of a training each."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    return subprocess.run(
        [*map(str, words), str(folder / "jobs.json")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )


def words_of(case, few, files, bert, home):
    """The words of a case's training, but for what is its number of processes'."""
    stage, changes = CASES[case]
    if "form" in changes:
        changes = changes | {"index_output": home / case / "index"}
    named = {"encoder": bert, **few, "max_steps": 3, "learning_rate": 0}
    named |= {"max_grad_norm": 0, "use_cpu": True, "logging_steps": 1} | changes
    if "eval_steps" in changes:
        named |= {"eval_topics": files["topics"], "eval_qrels": files["qrels"]}
    if stage == "adore":
        named |= {"vectors": home / case / "vectors", "adore_hits": 10}
    else:
        named |= {"corpus": files["corpus"], "negatives": files["run"], "dropout": 0}
    return stage, named


@pytest.fixture(scope="module")
def trained(script, few, files, bert, corpus, home):
    """All cases in one process, and all in two; what both said."""
    encoder = DenseEncoder.load(str(bert))
    more = corpus | {f"more-{n}": f"old {n} lamp" for n in range(252)}
    for case, (stage, changes) in CASES.items():
        if stage == "adore":
            texts = more if "form" in changes else corpus
            encode_corpus(encoder, texts, home / case / "vectors")
    said = []
    for name, command, batch in (("one", [sys.executable], 4), ("two", TORCHRUN, 2)):
        jobs = []
        for case in CASES:
            (home / case).mkdir(exist_ok=True)
            stage, named = words_of(case, few, files, bert, home)
            named |= {"output_dir": home / case / name}
            named |= {"per_device_train_batch_size": batch}
            words = [stage, *map(str, arguments.argv_of(named))]
            jobs.append((str(home / case / f"{name}.pt"), words))
        said.append(run(*command, script, jobs=jobs, folder=home).stderr)
    return said


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process(case, trained, home, monkeypatch):
    """To 1e-6 of their length, in three steps of which the last is uneven."""
    stage, changes = CASES[case]
    gradients, had, logs, measured = [], [], [], []
    for name, said in zip(("one", "two"), trained, strict=True):
        assert (home / case / f"{name}.pt").is_file(), said
        kept = torch.load(home / case / f"{name}.pt", weights_only=True)
        gradients.append(kept["gradients"])
        had.append(kept["had"])
        lines = (home / case / f"{name}.log.jsonl").read_text().splitlines()
        logs.append([line for line in map(json.loads, lines) if "loss" in line])
        measured.append(curves.read(home / case / f"{name}.log.jsonl"))
    assert measured[0] == measured[1]
    assert bool(measured[0]) is ("eval_steps" in changes)
    one, two = gradients
    assert len(one) == len(two) == 3
    for ours, theirs in zip(one, two, strict=True):
        names = [name for name in ours if ours[name].any()]
        held = [name for name in names if name.endswith("matrix.vectors")]
        assert bool(held) is (stage == "dynamic")
        assert len(names) > 20
        ours = torch.cat([ours[name].flatten() for name in names]).double()
        theirs = torch.cat([theirs[name].flatten() for name in names]).double()
        assert (ours - theirs).norm() < 1e-6 * ours.norm()
    assert len(logs[0]) == 3
    for ours, theirs in zip(*logs, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["positive_first"] == theirs["positive_first"]
    assert had[0] == []
    if stage == "adore" and "form" not in changes:
        require_as_on_paper(had[1], monkeypatch)


def require_as_on_paper(had, monkeypatch):
    """What benchmarks/growth.py says of a step, against the first of three that ran.

    Its batch is of four queries, each with ten hits, two drawn documents and up to two positives.
    """
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    growth = importlib.import_module("growth")
    job = growth.Job(
        passages=48, dimension=16, parameters=0, hits=10, adore_batch=4, positives=2
    )
    step = growth.adore_step(job, 2)
    queries, hits, drawn, relevant = had[:4]
    assert queries == ("gathered", step["gathered"]["queries"])
    assert hits == ("gathered", step["gathered"]["hits"])
    # Two more rows of each query are drawn here.
    taken = drawn[1] + relevant[1] - 4 * 2 * 16 * 4
    assert taken == step["summed"]["vectors"]
    assert [kind for kind, _ in had[:4]] == ["gathered", "gathered", "summed", "summed"]


def test_a_process_that_dies_ends_all(script, few, files, bert, tmp_path):
    """With a message, and long before any timeout."""
    dying = tmp_path / "dying.py"
    dying.write_text(
        script.read_text().replace(
            "trainer.CountUpdates = Keep",
            "class Dying(trainer.CountUpdates):\n"
            "    def on_step_end(self, args, *rest, **kwargs):\n"
            "        if args.process_index == 1:\n"
            "            os.kill(os.getpid(), 9)\n"
            "trainer.CountUpdates = Dying",
        )
    )
    argv = arguments.argv_of(
        {"encoder": bert, **few, "corpus": files["corpus"], "use_cpu": True}
        | {"negatives": files["run"], "output_dir": tmp_path / "out"}
        | {"per_device_train_batch_size": 2, "max_steps": 50}
    )
    jobs = [(str(tmp_path / "x.pt"), ["star", *map(str, argv)])]
    started = time.monotonic()
    done = run(*TORCHRUN, dying, jobs=jobs, folder=tmp_path)
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL)" in done.stderr
    assert time.monotonic() - started < 120
    assert not (tmp_path / "out").exists()


def test_a_recipe_is_not_started_twice(monkeypatch):
    """By torchrun, whose processes would write the same files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["train", "quickstart"])
    with pytest.raises(DenseHNError, match="quickstart: a recipe runs in one process"):
        train_command.main()


def test_passages_of_a_pool_are_known_by_their_rows():
    """Against the whole matrix, by hand."""
    matrix = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    pool = torch.tensor([1, 4, 5, 11, 19])
    passages = WholePassages(matrix, pool.numpy(), torch.device("cpu"), torch.float32)
    queries = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    scores = (queries.double() @ matrix[pool].double().T).argsort(descending=True)
    assert torch.equal(passages.search(queries, 3), pool[scores[:, :3]])
    rows = torch.tensor([[19, 1], [5, 4]])
    assert torch.equal(passages.take(rows), matrix[rows])
