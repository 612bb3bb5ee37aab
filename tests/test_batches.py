"""Batches and their losses, from texts to a number, against plain loops."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from dense_hn import trec
from dense_hn.collections.corpus import Corpus
from dense_hn.encode import encode_corpus, encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.false_negatives import Filter, Report
from dense_hn.mine import retrieve
from dense_hn.negatives import RandomNegatives, StaticNegatives
from dense_hn.train import adore, arguments, commands, joint
from dense_hn.train.distillation import Distillation


@pytest.fixture
def training(tmp_path):
    return TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True)


@pytest.fixture
def excluded(qrels):
    return {qid: set(trec.positives(qrels, qid)) for qid in qrels}


ITEMS = [
    {
        "topics": {"q0": "x"},
        "positive": "red-lamp",
        "hard": ["red-door"],
        "random": ["amber-lamp"],
    },
    {
        "topics": {"q1": "y"},
        "positive": "red-chair",
        "hard": ["red-stone"],
        "random": [],
    },
    {
        "topics": {"q2": "z"},
        "positive": "red-river",
        "hard": ["red-lamp"],
        "random": ["red-door"],
    },
]


@pytest.mark.parametrize("in_batch", [True, False])
def test_masks_are_what_they_are_defined_to_be(in_batch, bert, corpus, qrels, excluded):
    """A batch with repeated documents, and with known positives among negatives."""
    collate = joint.JointCollator(
        DenseEncoder.load(str(bert)), Corpus.of(corpus), excluded, in_batch=in_batch
    )
    batch = collate(ITEMS)
    brought = [(item["positive"], b, "positive") for b, item in enumerate(ITEMS)]
    for kind in ("hard", "random"):
        brought += [(d, b, kind) for b, item in enumerate(ITEMS) for d in item[kind]]
    assert batch["docids"] == [docid for docid, _, _ in brought]
    assert len(batch["passages"]["places"]) == len(brought) == 8
    assert batch["positive"].tolist() == [0, 1, 2]
    for b, item in enumerate(ITEMS):
        relevant = trec.positives(qrels, *item["topics"])
        for m, (docid, owner, kind) in enumerate(brought):
            allowed = docid not in relevant
            hard = owner == b and kind == "hard"
            random = (owner == b and kind == "random") or (owner != b and in_batch)
            assert batch["hard"][b, m] == (hard and allowed)
            assert batch["random"][b, m] == (random and allowed)
    # q0 has two positives, red-lamp and red-stone: neither is ever its negative.
    if in_batch:
        expected = [False, True, True, False, False, False, True, True]
        assert batch["random"][0].tolist() == expected


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "name", ["weighted", "pooled", "infonce", "margin-mse", "kl", "a tenth of kl"]
)
def test_the_joint_loss_equals_a_loop(
    name, shared, bert, corpus, topics, qrels, run, training
):
    """Vectors from encode_texts, the loss from its definition."""
    encoder = DenseEncoder.load(str(bert))
    # Every document is relevant to its own topics, and in fours to others'.
    all_positives = {qid: trec.positives(qrels, qid) for qid in topics}
    positives = dict(all_positives)
    if shared:
        first = [docids[0] for docids in all_positives.values()]
        for n, qid in enumerate(topics):
            positives[qid] = list(dict.fromkeys([*positives[qid], first[n // 4 * 4]]))
    excluded = {qid: set(docids) for qid, docids in positives.items()}
    parts = (
        topics,
        positives,
        [StaticNegatives([run], excluded, depth=20, number=2, seed=3)],
        RandomNegatives(list(corpus), excluded, number=1, seed=3),
        3,
    )
    dataset = joint.JointDataset(*parts)
    if shared:
        dataset = joint.SharedDataset(*parts, topics_per_positive=3)
    items = [dataset[i] for i in range(5)]
    # Of each query: its item, and the query.
    rows = [(b, qid) for b, item in enumerate(items) for qid in item["topics"]]
    assert (len(rows) > 5) == shared
    # Scores of half of the corpus, all positives among them.
    draw = torch.Generator().manual_seed(1)
    teacher = {
        qid: {
            docid: float(torch.randn((), generator=draw))
            for n, docid in enumerate(corpus)
            if n % 2 == 0 or docid in positives[qid]
        }
        for qid in topics
    }
    batch = joint.JointCollator(encoder, Corpus.of(corpus), excluded, teacher=teacher)(
        items
    )
    told = {
        "margin-mse": ("margin-mse", 1),
        "kl": ("kl", 1),
        "a tenth of kl": ("kl", 0.1),
    }
    distillation = None
    if name in told:
        kind, weight = told[name]
        distillation = Distillation(name=kind, weight=weight, scale=2.0)
    trainer = joint.JointTrainer(
        model=encoder,
        args=training,
        star_loss="pooled" if name in told else name,
        alpha=0.3,
        distillation=distillation,
    )
    encoder.eval()
    with torch.no_grad():
        loss = trainer.compute_loss(encoder, batch).item()

    queries = encode_texts(encoder, [topics[qid] for _, qid in rows], "query").double()
    docs = [(b, item["positive"], "positive") for b, item in enumerate(items)]
    for kind in ("hard", "random"):
        docs += [(b, d, kind) for b, item in enumerate(items) for d in item[kind]]
    texts = [corpus[docid] for _, docid, _ in docs]
    passages = encode_texts(encoder, texts, "passage").double()
    hards, randoms, entropies, squares, divergences = [], [], [], [], []
    for query, (b, qid) in zip(queries, rows, strict=True):
        score = [20 * float(query @ p) for p in passages]
        told = {d: 2 * s for d, s in teacher[qid].items()}
        exponentials = [math.exp(score[b])]
        pairs = [(score[b], told[items[b]["positive"]])]
        for m, (owner, docid, kind) in enumerate(docs):
            if docid in positives[qid]:
                continue
            pair = math.log1p(math.exp(score[m] - score[b]))
            (hards if owner == b and kind == "hard" else randoms).append(pair)
            exponentials.append(math.exp(score[m]))
            if docid in told:
                pairs.append((score[m], told[docid]))
        entropies.append(math.log(sum(exponentials)) - score[b])
        squares += [(pairs[0][0] - s - pairs[0][1] + t) ** 2 for s, t in pairs[1:]]
        ours, theirs = (math.fsum(map(math.exp, side)) for side in zip(*pairs))
        divergences.append(
            sum(
                math.exp(t) / theirs * (t - math.log(theirs) - s + math.log(ours))
                for s, t in pairs
            )
        )
    mean = lambda values: sum(values) / len(values)
    expected = {
        "weighted": mean(hards) + 0.3 * mean(randoms),
        "pooled": mean(hards + randoms),
        "infonce": mean(entropies),
        "margin-mse": mean(squares),
        "kl": mean(divergences),
        "a tenth of kl": 0.9 * mean(hards + randoms) + 0.1 * mean(divergences),
    }
    assert len(hards) >= 10
    assert loss == pytest.approx(expected[name], rel=1e-5)


def test_a_document_that_two_sources_draw_counts_once(corpus):
    one, two, three = list(corpus)[:3]
    both = {"q": {one: 2.0, two: 1.0}}
    excluded = {"q": {docid for docid in corpus if docid not in (one, two, three)}}
    drawn = joint.JointDataset(
        {"q": "text"},
        {"q": ["positive"]},
        [StaticNegatives([both], excluded, depth=5, number=2, seed=n) for n in (1, 2)],
        RandomNegatives(list(corpus), excluded, number=3, seed=1),
        1,
    )[0]
    assert sorted(drawn["hard"]) == sorted([one, two])
    assert drawn["random"] == [three]


def test_an_epoch_has_every_topic_with_each_of_its_positives(corpus):
    """Three topics of a, of which two at most stand together; one of them is b's, too."""
    topics = {qid: f"text of {qid}" for qid in ("q1", "q2", "q3", "q4")}
    positives = {"q1": ["a"], "q2": ["a", "b"], "q3": ["a"], "q4": ["c"]}
    excluded = {qid: set(docids) for qid, docids in positives.items()}
    run = {qid: {f"hit of {qid}": 1.0} for qid in topics}
    dataset = joint.SharedDataset(
        topics,
        positives,
        [StaticNegatives([run], excluded, depth=5, number=1, seed=1)],
        RandomNegatives(list(corpus), excluded, number=1, seed=1),
        1,
        topics_per_positive=2,
    )
    pairs = sorted((qid, docid) for qid in positives for docid in positives[qid])
    together = set()
    for dataset.epoch in range(20):
        items = [dataset[n] for n in range(len(dataset))]
        assert [item["positive"] for item in items] == ["a", "a", "b", "c"]
        assert [len(item["topics"]) for item in items[:2]] == [2, 1]
        assert pairs == sorted((q, i["positive"]) for i in items for q in i["topics"])
        assert all(i["topics"].items() <= topics.items() for i in items)
        for item in items:
            first = next(iter(item["topics"]))
            assert item["hard"] == [f"hit of {first}"] and len(item["random"]) == 1
        together.add(frozenset(items[0]["topics"]))
    assert len(together) == 3


@pytest.mark.parametrize("stage", ["warmup", "adore"])
def test_a_stage_can_have_a_temperature_of_its_own(
    stage, bert, files, corpus, tmp_path
):
    """One step over all topics: the loss of scale 3 is that of an encoder of scale 3."""
    DenseEncoder.load(str(bert), scale=3.0).save(tmp_path / "three")
    encode_corpus(DenseEncoder.load(str(bert)), corpus, tmp_path / "vectors")
    told = {}
    for name, encoder, more in (
        ("own", tmp_path / "three", {}),
        ("stage", bert, {"scale": 3.0}),
        ("twenty", bert, {}),
    ):
        argv = {"encoder": encoder, "topics": files["topics"], "qrels": files["qrels"]}
        if stage == "adore":
            argv |= {"vectors": tmp_path / "vectors", "adore_hits": 10}
        else:
            argv |= {"corpus": files["corpus"]}
        argv |= {"output_dir": tmp_path / name, "max_steps": 1, "logging_steps": 1}
        argv |= {"per_device_train_batch_size": 24, "use_cpu": True, "dropout": 0}
        if stage == "adore":
            del argv["dropout"]
        commands.train(stage, arguments.argv_of(argv | more))
        log = (tmp_path / f"{name}.log.jsonl").read_text().splitlines()
        told[name] = json.loads(log[0])["loss"]
    assert told["own"] == told["stage"] != told["twenty"]
    assert DenseEncoder.load(str(tmp_path / "stage")).settings.scale == 3.0


def test_in_batch_filters_look_at_the_scores_of_the_step(
    bert, corpus, topics, qrels, excluded, training
):
    encoder = DenseEncoder.load(str(bert)).eval()
    collate = joint.JointCollator(encoder, Corpus.of(corpus), excluded)
    items = [
        {"topics": {q: topics[q]}, "positive": next(iter(qrels[q]))}
        | {"hard": [], "random": []}
        for q in list(topics)[:6]
    ]
    qids = list(topics)[:6]
    batch = collate(items)
    queries = encode_texts(encoder, [topics[qid] for qid in qids], "query")
    passages = encode_texts(encoder, [corpus[i["positive"]] for i in items], "passage")
    scores = queries @ passages.T
    # Six decimals away from any score, so that no rounding decides.
    margin = -float((scores - scores.diagonal()[:, None]).flatten().median()) + 1e-6
    suspicious = {
        (qids[b], items[m]["positive"])
        for b in range(6)
        for m in range(6)
        if scores[b, m] > scores[b, b] - margin and batch["random"][b, m]
    }
    assert 5 < len(suspicious) < 30
    report = Report()
    trainer = joint.JointTrainer(
        model=encoder,
        args=training,
        star_loss="pooled",
        filter_=Filter(absolute_margin=margin),
        report=report,
    )
    with torch.no_grad():
        loss = trainer.compute_loss(encoder, batch).item()
    pairs = [
        math.log1p(math.exp(20 * float(scores[b, m] - scores[b, b])))
        for b in range(6)
        for m in range(6)
        if batch["random"][b, m] and (qids[b], items[m]["positive"]) not in suspicious
    ]
    assert loss == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
    assert set(report.dropped(joint.IN_BATCH)) == suspicious


@pytest.fixture
def adore_setting(bert, tmp_path, corpus, topics, qrels, training):
    """An ADORE trainer's parts on the made collection, q0 with grades 1 and 2."""
    encoder = DenseEncoder.load(str(bert))
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    some = dict(list(topics.items())[:6])
    return SimpleNamespace(encoder=encoder, vectors=vectors, topics=some)


def adore_pairs(
    setting, qrels, metric, cut, dropped=lambda score, best: False, pool=None
):
    """(query, loss) of every pair, from retrieval over the whole corpus on.

    With a pool, over its rows alone.
    """
    m = lambda r: 0 if r > cut else 1 / math.log2(1 + r) if metric == "nDCG" else 1 / r
    matrix, docids = setting.vectors.matrix.double(), setting.vectors.docids
    texts = list(setting.topics.values())
    queries = encode_texts(setting.encoder, texts, "query").double()
    for qid, query in zip(setting.topics, queries, strict=True):
        scores = matrix @ query
        order = scores.argsort(descending=True).tolist()
        order = [row for row in order if pool is None or row in pool]
        grade = {docids.index(d): qrels[qid][d] for d in trec.positives(qrels, qid)}
        rank = {row: r for r, row in enumerate(order[:10], 1)}
        behind = [row for row in order[10:] if row in grade]
        rank |= {row: 11 + n for n, row in enumerate(behind)}
        ideal = sum(
            g * m(place)
            for place, g in enumerate(sorted(grade.values(), reverse=True), 1)
        )
        best = max(float(scores[row]) for row in grade)
        for i, gain in grade.items():
            for j in rank:
                if j in grade and (metric != "nDCG" or grade[j] >= gain):
                    continue
                if j not in grade and dropped(float(scores[j]), best):
                    continue
                weight = abs(m(rank[i]) - m(rank[j]))
                if metric == "nDCG":
                    weight *= (gain - grade.get(j, 0)) / ideal
                loss = math.log1p(math.exp(20 * float(scores[j] - scores[i])))
                yield qid, loss if metric == "none" else weight * loss


def mean_of_means(pairs):
    by_query = {}
    for qid, loss in pairs:
        by_query.setdefault(qid, []).append(loss)
    return sum(sum(v) / len(v) for v in by_query.values()) / len(by_query)


def adore_loss(setting, training, items, metric, **more):
    """The trainer's loss of a batch: 10 hits, cut 4."""
    trainer = adore.AdoreTrainer(
        model=setting.encoder,
        args=training,
        train_dataset=items,
        vectors=setting.vectors,
        hits=10,
        cut=4,
        metric=metric,
        **more,
    )
    batch = adore.AdoreCollator(setting.encoder)(items)
    return trainer.compute_loss(setting.encoder, batch).item()


@pytest.mark.parametrize("metric", ["RR", "nDCG", "none"])
def test_the_adore_loss_equals_a_loop(metric, adore_setting, qrels, excluded, training):
    """Retrieval and LambdaLoss from their definitions, over the whole corpus."""
    setting = adore_setting
    dataset = adore.AdoreDataset(
        setting.topics, qrels, excluded, setting.vectors.docids
    )
    setting.encoder.train()
    loss = adore_loss(setting, training, [dataset[i] for i in range(6)], metric)
    expected = mean_of_means(adore_pairs(setting, qrels, metric, cut=4))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert loss > 0


def test_the_adore_loss_without_others_equals_a_loop(
    adore_setting, qrels, excluded, training
):
    """As many hits as ever, of a corpus that lacks them: each topic's two best strangers."""
    setting = adore_setting
    docids = setting.vectors.docids
    run = dict(retrieve(setting.encoder, setting.vectors, setting.topics, 6))
    others = {
        qid: set([d for d in run[qid] if d not in qrels[qid]][:2])
        for qid in setting.topics
    }
    left_out = {qid: excluded[qid] | others[qid] for qid in setting.topics}
    dataset = adore.AdoreDataset(setting.topics, qrels, left_out, docids, others=others)
    items = [dataset[i] for i in range(6)]
    loss = adore_loss(setting, training, items, "RR")
    pairs = [
        (qid, pair)
        for of, gone in others.items()
        for qid, pair in adore_pairs(
            setting,
            qrels,
            "RR",
            cut=4,
            pool={*range(len(docids))} - {docids.row(docid) for docid in gone},
        )
        if qid == of
    ]
    assert loss == pytest.approx(mean_of_means(pairs), rel=1e-5)
    plain = adore.AdoreDataset(setting.topics, qrels, left_out, docids)
    kept = adore_loss(setting, training, [plain[i] for i in range(6)], "RR")
    assert loss != pytest.approx(kept, rel=1e-3)


def test_the_adore_loss_of_a_pool_equals_a_loop(
    adore_setting, qrels, excluded, training
):
    """Every second document is searched, and what is relevant."""
    setting = adore_setting
    docids = setting.vectors.docids
    relevant = {docids.row(d) for q in setting.topics for d in qrels[q]}
    pool = np.array(sorted({*range(0, len(docids), 2), *relevant}))
    dataset = adore.AdoreDataset(setting.topics, qrels, excluded, docids)
    items = [dataset[i] for i in range(6)]
    loss = adore_loss(setting, training, items, "RR", pool=pool)
    pairs = adore_pairs(setting, qrels, "RR", cut=4, pool=set(pool.tolist()))
    assert loss == pytest.approx(mean_of_means(pairs), rel=1e-5)
    assert loss != pytest.approx(adore_loss(setting, training, items, "RR"), rel=1e-3)


def test_dynamic_filters_look_at_the_scores_of_the_step(
    adore_setting, qrels, excluded, training
):
    setting, report = adore_setting, Report()
    dataset = adore.AdoreDataset(
        setting.topics, qrels, excluded, setting.vectors.docids
    )
    bounds = {"filter_": Filter(absolute_margin=-0.1), "report": report}
    items = [dataset[i] for i in range(6)]
    loss = adore_loss(setting, training, items, "none", **bounds)
    too_high = lambda score, best: score > best + 0.1
    every = list(adore_pairs(setting, qrels, "none", 4))
    left = list(adore_pairs(setting, qrels, "none", 4, too_high))
    assert 0 < len(left) < len(every)
    assert loss == pytest.approx(mean_of_means(left), rel=1e-5)
    assert report.dropped(adore.DYNAMIC)


def test_the_best_hits_of_a_step_can_be_left_out(
    adore_setting, qrels, excluded, training
):
    setting = adore_setting
    docids = setting.vectors.docids
    dataset = adore.AdoreDataset(setting.topics, qrels, excluded, docids)
    items = [dataset[i] for i in range(6)]
    loss = adore_loss(setting, training, items, "none", skip=2)
    pairs = []
    queries = encode_texts(setting.encoder, list(setting.topics.values()), "query")
    for qid, query in zip(setting.topics, queries, strict=True):
        scores = dict(zip(docids, (setting.vectors.matrix @ query).tolist()))
        for p in trec.positives(qrels, qid):
            for n in trec.ranked(scores)[2:10]:
                if n not in excluded[qid]:
                    pair = math.log1p(math.exp(20 * (scores[n] - scores[p])))
                    pairs.append((qid, pair))
    assert loss == pytest.approx(mean_of_means(pairs), rel=1e-5)


def test_drawn_negatives_stand_behind_the_hits(
    adore_setting, qrels, excluded, run, corpus, training
):
    """Static and random documents, some of them hits already, and other pairs alike."""
    setting = adore_setting
    docids = setting.vectors.docids
    drawn = [
        StaticNegatives([run], excluded, depth=20, number=12, seed=1),
        RandomNegatives(docids, excluded, number=3, seed=1),
    ]
    dataset = adore.AdoreDataset(setting.topics, qrels, excluded, docids, drawn)
    items = [dataset[i] for i in range(6)]
    loss = adore_loss(setting, training, items, "none")

    pairs, twice = [], 0
    texts = list(setting.topics.values())
    queries = encode_texts(setting.encoder, texts, "query").double()
    for qid, query in zip(setting.topics, queries, strict=True):
        scores = dict(zip(docids, (setting.vectors.matrix @ query.float()).tolist()))
        hits = trec.ranked(scores)[:10]
        more = {d for source in drawn for d in source.draw(qid, 0)}
        assert len(more) >= 13
        twice += len(more & set(hits))
        for p in trec.positives(qrels, qid):
            for n in {*hits, *more} - excluded[qid]:
                pair = math.log1p(math.exp(20 * (scores[n] - scores[p])))
                pairs.append((qid, pair))
    assert twice > 0
    assert loss == pytest.approx(mean_of_means(pairs), rel=1e-5)
    dataset.epoch = 1
    assert [item["drawn"] for item in items] != [dataset[i]["drawn"] for i in range(6)]


def test_what_a_teacher_suspects_is_no_dynamic_negative(adore_setting, qrels, excluded):
    setting = adore_setting
    suspects = {"amber-apple", "blue-door"}
    excluded["q2"] = excluded["q2"] | suspects
    dataset = adore.AdoreDataset(
        setting.topics, qrels, excluded, setting.vectors.docids
    )
    batch = adore.AdoreCollator(setting.encoder)([dataset[i] for i in range(6)])
    names = [setting.vectors.docids[row] for row in batch["excluded"][2] if row >= 0]
    assert set(names) == set(trec.positives(qrels, "q2")) | suspects
    assert batch["grades"][0].tolist() == [qrels["q0"][d] for d in qrels["q0"]]
