"""STAR and ADORE through the Trainer: batches, losses, determinism, refusals."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from dense_hn import DenseHNError, trec
from dense_hn.encode import Vectors, encode_corpus, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.negatives import StaticNegatives
from dense_hn.train import adore, arguments, commands, star

FAST = ["--max_steps", "6", "--per_device_train_batch_size", "8"]
FAST += ["--learning_rate", "1e-3", "--disable_tqdm", "true", "--use_cpu", "true"]


def star_argv(files, encoder, output, **changes):
    """Arguments of a short STAR training on the made collection."""
    argv = {"encoder": encoder, "corpus": files["corpus"], "topics": files["topics"]}
    argv |= {"qrels": files["qrels"], "negatives": files["run"], "output_dir": output}
    return arguments.argv_of(argv | changes) + FAST


def adore_argv(files, encoder, vectors, output, **changes):
    """Arguments of a short ADORE training on the made collection."""
    argv = {"encoder": encoder, "vectors": vectors, "topics": files["topics"]}
    argv |= {"qrels": files["qrels"], "output_dir": output, "adore_hits": 10}
    return arguments.argv_of(argv | changes) + FAST


@pytest.fixture
def vectors(bert, tmp_path, corpus):
    """Vectors folder of the made corpus."""
    encoder = DenseEncoder.load(str(bert))
    encode_corpus(encoder, corpus, "digest", tmp_path / "vectors")
    return tmp_path / "vectors"


def test_star_batch_masks(bert, corpus, topics, qrels, run):
    """Masks against their definition, for a batch with repeated and known documents."""
    encoder = DenseEncoder.load(str(bert))
    items = [
        {"qid": "q0", "query": "x", "positive": "red-lamp", "negatives": ["red-door"]},
        {
            "qid": "q1",
            "query": "y",
            "positive": "red-chair",
            "negatives": ["red-stone"],
        },
        {"qid": "q2", "query": "z", "positive": "red-river", "negatives": ["red-lamp"]},
    ]
    batch = star.StarCollator(encoder, corpus, qrels)(items)
    docids = ["red-lamp", "red-chair", "red-river", "red-door", "red-stone", "red-lamp"]
    assert len(batch["passages"]["input_ids"]) == 6
    for b, item in enumerate(items):
        relevant = trec.positives(qrels, item["qid"])
        for m, docid in enumerate(docids):
            own = m == b or docid in item["negatives"] and m == 3 + b
            assert batch["hard"][b, m] == (m == 3 + b and docid not in relevant)
            assert batch["random"][b, m] == (not own and docid not in relevant)
    # q0 has two positives: neither is a negative, wherever it stands.
    assert batch["random"][0].tolist() == [False, True, True, False, False, False]


@pytest.mark.parametrize("name", ["weighted", "pooled", "infonce"])
def test_star_loss_of_a_batch_equals_a_loop(
    name, bert, corpus, topics, qrels, run, tmp_path
):
    """From texts to loss: vectors from encode_texts, the loss from its definition."""
    encoder = DenseEncoder.load(str(bert))
    negatives = StaticNegatives([run], qrels, depth=20, seed=3)
    dataset = star.StarDataset(topics, qrels, negatives, per_query=2, seed=3)
    items = [dataset[i] for i in range(5)]
    batch = star.StarCollator(encoder, corpus, qrels)(items)
    _, training = commands.parse(
        "star",
        star_argv(
            dict.fromkeys(("corpus", "topics", "qrels", "run"), "x"),
            "x",
            tmp_path / "out",
        ),
    )
    trainer = star.StarTrainer(model=encoder, args=training, star_loss=name, alpha=0.3)
    encoder.eval()
    with torch.no_grad():
        loss = trainer.compute_loss(encoder, batch).item()

    queries = encode_texts(encoder, [item["query"] for item in items], "query").double()
    docs = [(b, item["positive"]) for b, item in enumerate(items)]
    docs += [(b, d) for b, item in enumerate(items) for d in item["negatives"]]
    passages = encode_texts(encoder, [corpus[d] for _, d in docs], "passage").double()
    hard, random, entropy = [], [], []
    for b, item in enumerate(items):
        score = [20 * float(queries[b] @ p) for p in passages]
        exponentials = [math.exp(score[b])]
        for m, (owner, docid) in enumerate(docs):
            if docid not in trec.positives(qrels, item["qid"]):
                pair = math.log1p(math.exp(score[m] - score[b]))
                (hard if owner == b else random).append(pair)
                exponentials.append(math.exp(score[m]))
        entropy.append(math.log(sum(exponentials)) - score[b])
    mean = {
        "weighted": sum(hard) / len(hard) + 0.3 * sum(random) / len(random),
        "pooled": sum(hard + random) / len(hard + random),
        "infonce": sum(entropy) / len(entropy),
    }
    assert loss == pytest.approx(mean[name], rel=1e-5)


def test_star_trains_and_is_the_same_every_time(bert, files, tmp_path):
    for name in ("one", "two"):
        commands.train("star", star_argv(files, bert, tmp_path / name))
    weights = (tmp_path / "one" / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "two" / "model.safetensors").read_bytes()
    assert weights != (bert / "model.safetensors").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} >= {"one", "two"}
    assert not list(tmp_path.glob(".*"))


def test_every_epoch_draws_other_negatives(bert, files, tmp_path, monkeypatch):
    """24 topics in batches of 8: three steps an epoch, the epoch told to the dataset."""
    seen = []
    collate = star.StarCollator.__call__
    monkeypatch.setattr(
        star.StarCollator,
        "__call__",
        lambda self, items: seen.extend(items) or collate(self, items),
    )
    commands.train("star", star_argv(files, bert, tmp_path / "out"))
    assert len(seen) == 48
    first = {item["qid"]: item["negatives"] for item in seen[:24]}
    second = {item["qid"]: item["negatives"] for item in seen[24:]}
    assert first.keys() == second.keys()
    assert first != second


def test_adore_loss_of_a_batch_equals_a_loop(
    bert, vectors, files, qrels, topics, tmp_path
):
    """Retrieval and LambdaLoss from their definitions, over the whole corpus."""
    _, training = commands.parse(
        "adore", adore_argv(files, bert, vectors, tmp_path / "o")
    )
    encoder = DenseEncoder.load(str(bert))
    matrix = Vectors.load(vectors)
    dataset = adore.AdoreDataset(topics, qrels, matrix.docids)
    trainer = adore.AdoreTrainer(
        model=encoder, args=training, vectors=matrix.matrix, hits=10, metric_cut=4
    )
    batch = adore.AdoreCollator(encoder)([dataset[i] for i in range(6)])
    encoder.train()
    loss = trainer.compute_loss(encoder, batch).item()

    m = lambda rank: 1 / rank if rank <= 4 else 0
    total = 0.0
    texts = list(topics.values())[:6]
    queries = encode_texts(encoder, texts, "query").double()
    for qid, query in zip(list(topics)[:6], queries, strict=True):
        scores = 20 * matrix.matrix.double() @ query
        order = scores.argsort(descending=True).tolist()
        relevant = {matrix.docids.index(d) for d in trec.positives(qrels, qid)}
        rank = {row: r for r, row in enumerate(order[:10], 1)}
        behind = [row for row in order[10:] if row in relevant]
        rank |= {row: 11 + n for n, row in enumerate(behind)}
        pairs = [
            abs(m(rank[i]) - m(rank[j]))
            * math.log1p(math.exp(float(scores[j] - scores[i])))
            for i in relevant
            for j in order[:10]
            if j not in relevant
        ]
        total += sum(pairs) / len(pairs)
    assert loss == pytest.approx(total / 6, rel=1e-5)
    assert loss > 0


def test_adore_trains_the_query_side_only(
    bert, vectors, files, tmp_path, topics, qrels
):
    before = {p.name: p.read_bytes() for p in vectors.iterdir()}
    argv = adore_argv(files, bert, vectors, tmp_path / "one", max_steps=60)
    commands.train("adore", [*argv, "--max_steps", "60"])
    assert before == {p.name: p.read_bytes() for p in vectors.iterdir()}
    made_from = Vectors.load(vectors)
    trained = DenseEncoder.load(str(tmp_path / "one"))
    assert trained.settings.passage_encoder == made_from.encoder
    made_from.require_made_by(trained, "the trained encoder")

    def rank_of_positives(encoder):
        queries = encode_texts(encoder, list(topics.values()), "query")
        scores = queries @ made_from.matrix.T
        own = [made_from.docids.index(next(iter(qrels[qid]))) for qid in topics]
        return float((scores >= scores[range(len(own)), own][:, None]).sum())

    assert rank_of_positives(trained) < rank_of_positives(DenseEncoder.load(str(bert)))


def test_adore_refuses_vectors_of_another_encoder(bert, vectors, files, tmp_path):
    commands.train("star", star_argv(files, bert, tmp_path / "star"))
    argv = adore_argv(files, tmp_path / "star", vectors, tmp_path / "adore")
    with pytest.raises(DenseHNError, match="made by another encoder"):
        commands.train("adore", argv)
    assert not (tmp_path / "adore").exists()


def append(path, line):
    path.write_text(path.read_text() + line + "\n")


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        (
            "qrels",
            "q3 0 nowhere 1",
            "qrels.txt: docid 'nowhere' (query 'q3') is not in",
        ),
        ("run", "q3 Q0 nowhere 99 0.1 t", "run.txt: docid 'nowhere' (query 'q3') is"),
        ("run", "q3 Q0 red-lamp 99 0.1", "run.txt:481: expected 6 columns"),
        ("topics", "new\twhere is it", "query 'new' has no relevant document in"),
        ("corpus", "", "corpus.jsonl:49: empty line"),
        ("corpus", "{broken", "corpus.jsonl:49: broken JSON"),
        (
            "corpus",
            '{"id": "red-lamp", "contents": "x"}',
            ":49: docid 'red-lamp' occurs",
        ),
    ],
)
def test_bad_input_is_refused_before_a_model_is_loaded(
    files, file, line, message, tmp_path
):
    append(files[file], line)
    argv = star_argv(files, tmp_path / "no model here", tmp_path / "out")
    with pytest.raises(DenseHNError) as error:
        commands.train("star", argv)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_topic_without_negatives_is_refused(files, qrels, run, tmp_path):
    short = dict(run)
    short["q4"] = dict.fromkeys(qrels["q4"], 1.0)
    trec.write_run(files["run"], short, "t")
    argv = star_argv(files, tmp_path / "no model here", tmp_path / "out")
    with pytest.raises(DenseHNError, match="query 'q4' has no negatives in"):
        commands.train("star", argv)


def test_an_output_folder_with_other_things_is_refused_before_training(
    bert, files, tmp_path
):
    argv = star_argv(files, tmp_path / "no model here", tmp_path)
    with pytest.raises(DenseHNError, match="holds other things"):
        commands.train("star", argv)
    assert files["corpus"].exists()


def test_nothing_stands_under_the_final_name_while_training(
    bert, files, tmp_path, monkeypatch
):
    def stop(self, *_, **__):
        assert not (tmp_path / "out").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(star.StarTrainer, "compute_loss", stop)
    with pytest.raises(KeyboardInterrupt):
        commands.train("star", star_argv(files, bert, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_training_resumes_from_a_checkpoint(bert, files, tmp_path):
    """Six steps at once, and four, then two more: the same weights."""
    keep = ["--save_strategy", "steps", "--save_steps", "4"]
    argv = [*star_argv(files, bert, tmp_path / "out"), *keep]
    saved = tmp_path / "kept"
    save = star.StarTrainer._save_checkpoint

    def save_and_keep(self, *arguments):
        save(self, *arguments)
        checkpoint = Path(self.args.output_dir) / "checkpoint-4"
        if checkpoint.exists() and not saved.exists():
            shutil.copytree(checkpoint, saved)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(star.StarTrainer, "_save_checkpoint", save_and_keep)
        commands.train("star", argv)
    argv = star_argv(files, bert, tmp_path / "resumed")
    commands.train("star", [*argv, "--resume_from_checkpoint", str(saved)])
    whole = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert (tmp_path / "resumed" / "model.safetensors").read_bytes() == whole


def test_adore_refuses_fewer_hits_than_positives(bert, vectors, files, tmp_path):
    argv = adore_argv(files, "no model here", vectors, tmp_path / "o", adore_hits=2)
    with pytest.raises(DenseHNError, match="query 'q0' has 2 relevant documents"):
        commands.train("adore", argv)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"star_loss": "triplet"}, "invalid choice: 'triplet'"),
        ({"negatives_depth": 0}, "negatives_depth and negatives_per_query start at 1"),
        ({"alpha": -1}, "alpha is -1.0"),
        ({"learning_rte": 1}, "'learning_rte'; did you mean 'learning_rate'"),
        ({"eval_strategy": "steps"}, "no evaluation while training yet"),
    ],
)
def test_bad_arguments_are_refused(files, change, message):
    with pytest.raises(DenseHNError, match=message):
        commands.parse("star", star_argv(files, "x", "out", **change))
