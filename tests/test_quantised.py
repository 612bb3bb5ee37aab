"""Product-quantised passages: against faiss, finite differences and slow loops."""

import json
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from dense_hn import DenseHNError, losses, trec
from dense_hn.collections.corpus import write_corpus
from dense_hn.columns import Docids
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.export import folder
from dense_hn.index import coded, read_index
from dense_hn.mine import retrieve
from dense_hn.quantised import Codes
from dense_hn.train import adore, arguments, commands, recipe
from dense_hn.train.adore import AdoreTrainer
from dense_hn.train.passages import CodedPassages
from dense_hn.train.pipeline import Pipeline
from dense_hn.vectors import Vectors

PASSAGES, DIMENSION, PARTS = 700, 24, 6
FORMS = ["pq", "opq-pq"]
FAST = ["--max_steps", "6", "--per_device_train_batch_size", "8"]
FAST += ["--learning_rate", "1e-3", "--disable_tqdm", "true", "--use_cpu", "true"]


def sample(number: int, seed: int) -> torch.Tensor:
    """[number, 24] float32, not centred."""
    made = torch.Generator().manual_seed(seed)
    return torch.randn(number, DIMENSION, generator=made) + 0.2


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Vectors:
    """700 vectors of nobody's."""
    docids = Docids.of(f"d{n}" for n in range(PASSAGES))
    return Vectors(docids, sample(PASSAGES, 0), "e", "c", tmp_path_factory.mktemp("v"))


@pytest.fixture(scope="module", params=FORMS)
def codes(request, plain) -> Codes:
    """Their codes, of 6 bytes."""
    return coded(plain, request.param, {"pq_m": PARTS})


def test_scores_and_hits_are_those_of_faiss(codes):
    index, queries = codes.as_index(), sample(20, 1)
    scores, rows = codes.top_k(queries, codes.codes, 50)
    theirs, found = index.search(queries.numpy(), 50)
    torch.testing.assert_close(scores, torch.from_numpy(theirs), rtol=1e-5, atol=1e-5)
    # Sums that round otherwise stand in another order.
    own = {(q, int(row)) for q in range(20) for row in rows[q]}
    assert len(own & {(q, int(row)) for q in range(20) for row in found[q]}) > 990
    assert (scores[:, 1:] <= scores[:, :-1]).all()


def test_equal_codes_are_ordered_by_row(codes):
    """Every one three times over, in chunks of several sizes."""
    thrice = codes.codes.repeat(3, 1)
    scores, rows = codes.top_k(sample(20, 1), thrice, 60)
    tied = scores[:, 1:] == scores[:, :-1]
    assert tied.sum() >= 20 * 40
    assert (rows[:, 1:] > rows[:, :-1])[tied].all()
    _, once = codes.top_k(sample(20, 1), codes.codes, 20)
    assert set(rows[0].tolist()) == {
        int(n) + 700 * m for n in once[0] for m in range(3)
    }


def test_what_a_code_stands_for_is_what_faiss_reads_back(codes):
    index, queries = codes.as_index(), sample(20, 1)
    if codes.rotation is None:
        theirs = torch.from_numpy(index.reconstruct_n(0, PASSAGES))
        torch.testing.assert_close(codes.decoded(), theirs)
    scores = queries.double() @ codes.decoded().double().T
    theirs, rows = index.search(queries.numpy(), PASSAGES)
    ours = scores.gather(1, torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_codes_of_a_folder_are_in_the_order_of_its_docids(plain, tmp_path):
    """An index of faiss's own, whose vectors stand in another order than its ids."""
    order = np.random.default_rng(3).permutation(PASSAGES)
    index = faiss.index_factory(
        DIMENSION, "IDMap,OPQ6,PQ6x8np", faiss.METRIC_INNER_PRODUCT
    )
    index.train(plain.matrix.numpy())
    index.add_with_ids(plain.matrix.numpy()[order], order)
    faiss.write_index(index, str(tmp_path / "index"))
    (tmp_path / "docid").write_text("".join(f"d{n}\n" for n in range(PASSAGES)))
    read = read_index(tmp_path)
    torch.testing.assert_close(read.codes.decoded(), read.matrix)
    queries = sample(5, 1)
    scores, _ = read.codes.top_k(queries, read.codes.codes, 10)
    theirs, _ = index.search(queries.numpy(), 10)
    torch.testing.assert_close(scores, torch.from_numpy(theirs), rtol=1e-5, atol=1e-5)


def test_an_index_of_four_bits_has_no_codes_to_train(plain, tmp_path):
    index = faiss.index_factory(DIMENSION, "PQ6x4np", faiss.METRIC_INNER_PRODUCT)
    index.train(plain.matrix.numpy())
    index.add(plain.matrix.numpy())
    faiss.write_index(index, str(tmp_path / "index"))
    (tmp_path / "docid").write_text("".join(f"d{n}\n" for n in range(PASSAGES)))
    assert read_index(tmp_path).codes is None


def test_few_passages_are_decoded_for_a_step(codes, monkeypatch):
    taken, take = [], Codes.take
    monkeypatch.setattr(
        Codes,
        "take",
        lambda self, codes: taken.append(codes[..., 0].numel()) or take(self, codes),
    )
    passages = CodedPassages(codes, None, torch.device("cpu"))
    passages.take(passages.search(sample(4, 1), 10))
    assert taken == [40]


def test_a_pool_is_searched_and_nothing_else(codes):
    pool = np.arange(5, PASSAGES, 3)
    passages = CodedPassages(codes, pool, torch.device("cpu"))
    queries = sample(4, 1)
    found = passages.search(queries, 20)
    scores = queries @ codes.decoded()[pool].T
    best = pool[scores.topk(20).indices.numpy()]
    assert (np.sort(found.numpy()) == np.sort(best)).mean() > 0.95
    assert set(found.flatten().tolist()) <= set(pool.tolist())
    torch.testing.assert_close(passages.take(found), codes.decoded()[found])


def test_centroids_have_the_gradients_of_finite_differences(codes):
    """Of LambdaLoss over given hits, in float64."""
    exact = Codes(codes.codes[:40].numpy(), codes.centroids.detach().numpy(), None)
    exact.double()
    if codes.rotation is not None:
        exact.rotation = codes.rotation.double()
    rows = torch.arange(40).view(4, 10)
    queries = sample(4, 1).double()
    used = torch.unique(exact.codes[:, 0].long())[:3]

    def loss(moved: torch.Tensor) -> torch.Tensor:
        """With three of the first part's centroids in these places."""
        centroids = exact.centroids.detach().clone()
        centroids[0, used] = moved
        found = torch.func.functional_call(
            Taking(exact), {"codes.centroids": centroids}, (rows,)
        )
        scores = (found @ queries[:, :, None])[:, :, 0]
        positive = scores[:, 3:5]
        ranks = torch.tensor([4, 5]).expand(4, -1)
        negative = torch.ones(4, 10, dtype=torch.bool)
        negative[:, 3:5] = False
        grades = torch.ones(4, 2, dtype=torch.int64)
        return losses.lambda_loss(positive, ranks, grades, scores, negative, 10)

    start = exact.centroids.detach()[0, used].clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (start,))


class Taking(torch.nn.Module):
    """What codes stand for, as a module's forward."""

    def __init__(self, codes: Codes) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., D] of rows [...]."""
        return self.codes.take(self.codes.codes[rows])


@pytest.fixture(scope="module")
def many(tmp_path_factory, corpus, topics, qrels, bert) -> dict[str, str]:
    """The made collection with 300 passages, of which 256 make a codebook, and vectors."""
    made = tmp_path_factory.mktemp("many")
    texts = dict(corpus)
    for docid, text in corpus.items():
        for n in range(6):
            texts[f"{docid}-{n}"] = f"{text} and {'old ' * n} {docid.split('-')[n % 2]}"
    texts = dict(list(texts.items())[:300])
    write_corpus(made / "corpus.jsonl", texts)
    trec.write_topics(made / "topics.tsv", topics)
    trec.write_qrels(made / "qrels.txt", qrels)
    encode_corpus(DenseEncoder.load(str(bert)), texts, made / "vectors")
    names = {"topics": "topics.tsv", "qrels": "qrels.txt", "vectors": "vectors"}
    return {name: str(made / file) for name, file in names.items()}


@pytest.fixture
def unchecked(monkeypatch) -> None:
    """Leaves the self-check in Pyserini, a quarter of a minute, to one test."""
    monkeypatch.setattr(folder, "self_check", lambda *_: "not looked at")


def train(many, bert, output, *flags, **changes) -> list[dict]:
    """A short ADORE training, and its log."""
    given = many | {"encoder": bert, "output_dir": output / "adore", "adore_hits": 20}
    argv = arguments.argv_of(given | changes) + FAST
    commands.train("adore", [*argv, *flags])
    log = (output / "adore.log.jsonl").read_text()
    return [json.loads(line) for line in log.splitlines()]


def weights(output) -> bytes:
    """Of the encoder, and of the index if there is one."""
    index = output / "index" / "index"
    made = index.read_bytes() if index.is_file() else b""
    return (output / "adore" / "model.safetensors").read_bytes() + made


@pytest.mark.usefixtures("pyserini_here")
def test_a_quantised_training_leaves_an_index_that_pyserini_opens(many, bert, tmp_path):
    """Self-checked in Pyserini when it is written; its codes are those of an export."""
    index = tmp_path / "index"
    train(many, bert, tmp_path, form="pq", pq_m=4, index_output=index)
    kept, fresh = read_index(index), Vectors.load(many["vectors"])
    start = coded(fresh, "pq", {"pq_m": 4})
    assert torch.equal(kept.codes.codes, start.codes)
    assert torch.equal(kept.codes.centroids, start.centroids)
    encoder = DenseEncoder.load(str(tmp_path / "adore"))
    assert encoder.searches(kept.encoder)
    assert encoder.digest() != DenseEncoder.load(str(bert)).digest()
    # Against the vectors themselves it learns something else.
    (tmp_path / "flat").mkdir()
    train(many, bert, tmp_path / "flat")
    assert weights(tmp_path / "flat") not in weights(tmp_path)


def test_joint_training_moves_centroids_and_no_code(many, bert, unchecked, tmp_path):
    joint = {"form": "opq-pq", "pq_m": 4, "train_centroids": True}
    index = tmp_path / "index"
    log = train(
        many, bert, tmp_path, "--logging_steps", "1", index_output=index, **joint
    )
    kept = read_index(index)
    start = coded(Vectors.load(many["vectors"]), "opq-pq", {"pq_m": 4})
    assert torch.equal(kept.codes.codes, start.codes)
    assert torch.equal(kept.codes.rotation, start.rotation)
    moved = (kept.codes.centroids - start.centroids).abs()
    # AdamW moves what has a gradient by about its rate: six steps of 1e-4, decreasing.
    assert 1e-4 < float(moved.detach().max()) < 1e-3
    assert all(line["loss"] > 0 for line in log if "loss" in line)
    # They are of no encoder but the one that learnt with them, and it is of no others.
    trained, start = (
        DenseEncoder.load(str(path)) for path in (tmp_path / "adore", bert)
    )
    kept.require_made_by(trained, "this")
    with pytest.raises(DenseHNError, match="made by another encoder"):
        kept.require_made_by(start, "that")
    with pytest.raises(DenseHNError, match="made by another encoder"):
        Vectors.load(many["vectors"]).require_made_by(trained, "this")


def test_what_was_trained_is_not_lost_with_the_index(
    many, bert, unchecked, tmp_path, monkeypatch
):
    """The self-check fails; the next call goes on from a checkpoint, to the same bytes."""
    joint = {"form": "pq", "pq_m": 4, "train_centroids": True, "save_minutes": 1e-9}
    for name in ("whole", "failed"):
        (tmp_path / name).mkdir()
    whole, failed = tmp_path / "whole", tmp_path / "failed"
    train(many, bert, whole, index_output=whole / "index", **joint)

    def fail(*_):
        raise DenseHNError("not found")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "self_check", fail)
        with pytest.raises(DenseHNError, match="not found"):
            train(many, bert, failed, index_output=failed / "index", **joint)
    assert not (failed / "index").exists()
    steps, compute = [], AdoreTrainer.compute_loss
    monkeypatch.setattr(
        AdoreTrainer,
        "compute_loss",
        lambda self, *args, **kwargs: steps.append(1) or compute(self, *args, **kwargs),
    )
    train(many, bert, failed, index_output=failed / "index", **joint)
    assert len(steps) < 6
    assert weights(failed) == weights(whole)


def test_evaluation_searches_what_the_codes_stand_for(
    many, bert, unchecked, tmp_path, monkeypatch
):
    """Against the product with all decoded vectors, before the first step and after."""
    seen, take = [], adore.take_share
    monkeypatch.setattr(
        adore,
        "take_share",
        lambda *args: seen.append(take(*args)) or seen[-1],
    )
    index = tmp_path / "index"
    evaluate = {"eval_strategy": "steps", "eval_steps": 3, "eval_share": 0.5}
    evaluate |= {"eval_topics": many["topics"], "eval_qrels": many["qrels"]}
    evaluate |= {"load_best_model_at_end": False, "save_minutes": 0}
    joint = {"form": "pq", "pq_m": 4, "train_centroids": True}
    train(many, bert, tmp_path, index_output=index, **joint, **evaluate)
    assert len(seen) == 2
    for found in seen:
        assert 150 <= len(found.docids) < 200 and len(found.matrix) == len(found.docids)
    kept = read_index(index)
    rows = kept.docids.rows(list(seen[-1].docids))
    torch.testing.assert_close(seen[-1].matrix, kept.matrix[torch.from_numpy(rows)])
    assert not torch.equal(seen[0].matrix, seen[-1].matrix)


def test_centroids_get_the_gradient_of_the_step_and_their_own_rate(
    many, bert, unchecked, tmp_path, monkeypatch
):
    """By a slow float64 loop over the hits and positives of the first step."""
    seen, compute = {}, AdoreTrainer.compute_loss

    def watch(self, model, inputs, **_):
        loss, found = compute(self, model, inputs, return_outputs=True)
        if not seen:
            codes = self._passages._codes
            with torch.no_grad():
                vectors = model.eval()(**inputs["queries"])
            gradient = torch.autograd.grad(loss, codes.centroids, retain_graph=True)
            seen["inputs"], seen["hits"] = inputs, found["hits"]
            seen["queries"], seen["gradient"] = vectors.double(), gradient[0]
            seen["codes"] = codes.codes.long()
            seen["centroids"] = codes.centroids.detach().double().clone()
            rates = [group["lr"] for group in self.optimizer.param_groups]
            seen["rates"] = rates
            seen["scale"] = model.settings.scale
        return loss

    monkeypatch.setattr(AdoreTrainer, "compute_loss", watch)
    joint = {"form": "pq", "pq_m": 4, "train_centroids": True}
    joint["centroid_learning_rate"] = 1e-2
    train(
        many,
        bert,
        tmp_path,
        "--lr_scheduler_type",
        "constant",
        index_output=tmp_path / "index",
        **joint,
    )
    assert seen["rates"] == [1e-3, 1e-3, 1e-2]

    centroids, inputs = seen["centroids"], seen["inputs"]
    width = centroids.shape[2]
    expected = torch.zeros_like(centroids)
    queries_with_a_pair = 0
    for q, query in enumerate(seen["queries"]):
        parts = query.view(-1, width) * seen["scale"]

        def score(row, parts=parts):
            code = seen["codes"][row]
            return sum(
                float(parts[m] @ centroids[m, code[m]]) for m in range(len(parts))
            )

        hits = seen["hits"][q].tolist()
        graded = zip(
            inputs["rows"][q].tolist(), inputs["grades"][q].tolist(), strict=True
        )
        positives = [row for row, grade in graded if grade]
        missing = sorted(
            (r for r in positives if r not in hits), key=score, reverse=True
        )
        gradient, pairs = torch.zeros_like(centroids), 0
        for row in positives:
            rank = hits.index(row) + 1 if row in hits else 21 + missing.index(row)
            for place, other in enumerate(hits, 1):
                if other in positives:
                    continue
                pairs += 1
                weight = abs(1 / rank - 1 / place)
                slope = weight / (1 + np.exp(score(row) - score(other)))
                for m, part in enumerate(parts):
                    gradient[m, seen["codes"][other][m]] += slope * part
                    gradient[m, seen["codes"][row][m]] -= slope * part
        queries_with_a_pair += bool(pairs)
        expected += gradient / max(pairs, 1)
    expected /= queries_with_a_pair
    torch.testing.assert_close(
        seen["gradient"].double(), expected, rtol=1e-3, atol=1e-5
    )
    assert float(expected.abs().max()) > 0.01


def test_a_stopped_joint_training_goes_on_to_the_same_bytes(
    many, bert, unchecked, tmp_path, monkeypatch
):
    joint = {"form": "pq", "pq_m": 4, "train_centroids": True, "save_minutes": 1e-9}
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(many, bert, whole, index_output=whole / "index", **joint)
    compute, steps = AdoreTrainer.compute_loss, []

    def stop(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return compute(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(AdoreTrainer, "compute_loss", stop)
        with pytest.raises(KeyboardInterrupt):
            train(many, bert, stopped, index_output=stopped / "index", **joint)
    train(many, bert, stopped, index_output=stopped / "index", **joint)
    assert weights(stopped) == weights(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "pq"}, "index_output is where the index goes"),
        ({"index_output": "there"}, "index_output is where the index goes"),
        ({"pq_m": 4}, "pq_m is of form"),
        ({"train_centroids": True}, "train_centroids is of product-quantised"),
        ({"centroid_learning_rate": 1e-3}, "centroid_learning_rate is of train_cen"),
        (
            {"train_centroids": True, "form": "pq", "centroid_learning_rate": 0},
            "centroid_learning_rate is 0.0; it must be above 0",
        ),
        ({"form": "pq", "index_output": "vectors"}, "vectors, which is only read"),
        ({"form": "pq", "index_output": "adore"}, "where the encoder goes"),
        ({"form": "pq", "pq_m": 5, "index_output": "there"}, "does not divide the 16"),
    ],
)
def test_impossible_settings_are_refused(many, bert, tmp_path, change, message):
    places = {"vectors": many["vectors"], "adore": tmp_path / "adore"}
    if "index_output" in change:
        name = change["index_output"]
        change = change | {"index_output": places.get(name, tmp_path / name)}
    with pytest.raises(DenseHNError, match=message):
        train(many, bert, tmp_path, **change)
    assert not list(tmp_path.iterdir())


def test_an_index_without_codes_has_no_centroids(many, bert, tmp_path):
    vectors = Vectors.load(many["vectors"])
    index = faiss.IndexFlatIP(16)
    index.add(vectors.matrix.numpy())
    (tmp_path / "flat").mkdir()
    faiss.write_index(index, str(tmp_path / "flat" / "index"))
    (tmp_path / "flat" / "docid").write_text("".join(f"{d}\n" for d in vectors.docids))
    given = {name: path for name, path in many.items() if name != "vectors"}
    with pytest.raises(
        DenseHNError, match="no index of the form pq or opq-pq with 8 b"
    ):
        train(
            given,
            bert,
            tmp_path,
            index=tmp_path / "flat",
            train_centroids=True,
            index_output=tmp_path / "index",
        )


def test_a_recipe_of_quantised_stages(bert, many, unchecked, qrels, tmp_path):
    """Each makes an index, by which it is searched, and another stage goes on from one."""
    made = Path(many["topics"]).parent
    asked, files = list(trec.read_topics(many["topics"]).items()), ""
    for split, part in (("train", asked[:16]), ("dev", asked[16:])):
        trec.write_topics(tmp_path / f"{split}.tsv", dict(part))
        judged = {qid: qrels[qid] for qid, _ in part}
        trec.write_qrels(tmp_path / f"{split}.txt", judged)
        paths = [str(tmp_path / f"{split}.{ending}") for ending in ("tsv", "txt")]
        files += f", {split}: {json.dumps(paths)}"
    fast = "max_steps: 2, use_cpu: true, save_minutes: 0, learning_rate: 1e-3"
    path = tmp_path / "small.yaml"
    path.write_text(
        f"collection: {{files: {{corpus: {made / 'corpus.jsonl'}{files}}}}}\n"
        f"encoder: {{source: {bert}}}\n"
        "evaluate: {topics: dev, hits: 20, measures: [RR@10], untrained: false}\n"
        f"adore: {{from: base, {fast}}}\n"
        f"pq: {{method: adore, from: base, form: pq, pq_m: 4, {fast}}}\n"
        f"joint: {{method: adore, from: pq, train_centroids: true, {fast}}}\n"
    )
    pipeline = Pipeline(recipe.read(str(path)), tmp_path)
    assert [pipeline.passages(name) for name in ("adore", "pq", "joint")] == [
        *("base", "pq", "joint")
    ]
    pipeline.run()
    report = pipeline.report()
    for name in ("pq", "joint"):
        folder = tmp_path / "work" / "small" / "indexes" / name
        assert f"--index {folder}" in report
        vectors = read_index(folder)
        encoder = DenseEncoder.load(str(pipeline.model(name)))
        found = dict(retrieve(encoder, vectors, dict(asked[16:]), 20))
        kept = trec.read_run(pipeline.hits(name, "dev"))
        assert {q: trec.ranked(h) for q, h in kept.items()} == {
            q: trec.ranked(h) for q, h in found.items()
        }
        card = (pipeline.model(name) / "README.md").read_text()
        assert f"product-quantised, in the index that the\nstage `{name}` made" in card
    first, second = (
        read_index(tmp_path / "work" / "small" / "indexes" / name).codes
        for name in ("pq", "joint")
    )
    assert torch.equal(first.codes, second.codes)
    assert not torch.equal(first.centroids, second.centroids)
    # Nothing is left to do.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("index")}
    Pipeline(recipe.read(str(path)), tmp_path).run()
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("index")}
