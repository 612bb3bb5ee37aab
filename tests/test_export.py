"""faiss forms against numpy, refusals, and Pyserini's own rule for names; no JVM."""

import ast
import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel

from dense_hn import DenseHNError, __version__
from dense_hn.collections.corpus import corpus_digest
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.encoder_settings import EncoderSettings
from dense_hn.export import faiss_index, manifest
from dense_hn.export.folder import export_index, write_index
from dense_hn.export.self_check import sample, self_check
from dense_hn.search_command import (
    ENCODER_WORDS,
    ORDERED_TOPICS,
    require_harmless,
    require_recognised,
    search_command,
)
from dense_hn.vectors import Vectors

N, D, K = 1200, 16, 10


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """[N, D] in 30 clusters, not of length one."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((30, D))
    points = centres[rng.integers(30, size=N)] + 0.4 * rng.standard_normal((N, D))
    return points.astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((25, D)).astype(np.float32)


@pytest.fixture(scope="module")
def built(vectors) -> dict[str, faiss.Index]:
    """Every form with its defaults, written and read again."""
    indexes = {}
    for form in faiss_index.FORMS:
        settled = faiss_index.settle(form, {}, N, D)
        index = faiss_index.build(torch.from_numpy(vectors), form, settled)
        indexes[form] = faiss.deserialize_index(faiss.serialize_index(index))
    return indexes


def exact(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """[Q, N] dot products in float64."""
    return queries.astype(np.float64) @ vectors.astype(np.float64).T


def test_flat_is_exact(built, queries, vectors):
    scores, rows = built["flat"].search(queries, K)
    expected = exact(queries, vectors)
    best = -np.sort(-expected, axis=1)[:, :K]
    np.testing.assert_allclose(scores, best, atol=1e-5)
    found = np.take_along_axis(expected, rows, axis=1)
    np.testing.assert_allclose(found, best, atol=1e-5)
    assert all(len(set(row)) == K for row in rows)


# How far a number may be off in each form, as a share of its size or of the range of
# its dimension: half of a last bit, and half of a step.
@pytest.mark.parametrize(
    ("form", "relative", "of_range"),
    [("fp16", 2**-11, 0), ("hnsw-fp16", 2**-11, 0), ("sq8", 0, 0.5 / 255)],
)
def test_rounded_numbers_are_within_bounds(
    built, queries, vectors, form, relative, of_range
):
    scores, rows = built[form].search(queries, K)
    width = vectors.max(axis=0) - vectors.min(axis=0)
    off = relative * np.abs(vectors) + of_range * width + 1e-6
    bound = np.take_along_axis(np.abs(queries) @ off.T, rows, axis=1)
    expected = np.take_along_axis(exact(queries, vectors), rows, axis=1)
    assert (np.abs(scores - expected) <= bound + 1e-5).all()


@pytest.mark.parametrize("form", faiss_index.FORMS)
def test_scores_are_dot_products_of_what_is_stored(built, queries, form):
    """Also what relevance feedback needs: vectors out of the index."""
    index = built[form]
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    assert index.ntotal == N
    scores, rows, stored = index.search_and_reconstruct(queries, K)
    assert (rows >= 0).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    dots = np.einsum("qd,qkd->qk", queries.astype(np.float64), stored)
    np.testing.assert_allclose(scores, dots, atol=2e-5)


@pytest.mark.parametrize(
    ("form", "least"),
    [
        ("flat", 1.0),
        ("fp16", 0.98),
        ("sq8", 0.95),
        ("hnsw", 0.98),
        ("hnsw-fp16", 0.98),
        # 4 bytes for 16 dimensions.
        ("pq", 0.6),
        ("opq-pq", 0.6),
        ("ivf", 0.85),
        ("ivf-pq", 0.6),
        ("opq-ivf-pq", 0.6),
    ],
)
def test_share_of_the_exact_top_ten(built, queries, vectors, form, least):
    _, rows = built[form].search(queries, K)
    best = np.argsort(-exact(queries, vectors), axis=1)[:, :K]
    found = [len(set(a) & set(b)) for a, b in zip(rows, best, strict=True)]
    assert sum(found) / (K * len(queries)) >= least


def test_all_cells_are_the_whole(queries, vectors):
    settled = faiss_index.settle("ivf", {"nlist": 20, "nprobe": 20}, N, D)
    index = faiss_index.build(torch.from_numpy(vectors), "ivf", settled)
    scores, _ = index.search(queries, K)
    expected = -np.sort(-exact(queries, vectors), axis=1)[:, :K]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("form", faiss_index.FORMS)
def test_the_same_vectors_give_the_same_bytes(vectors, form, built):
    settled = faiss_index.settle(form, {}, N, D)
    again = faiss_index.build(torch.from_numpy(vectors), form, settled)
    first, second = map(faiss.serialize_index, (built[form], again))
    assert first.tobytes() == second.tobytes()


def test_chunks_and_training_samples(vectors, monkeypatch):
    """A large matrix is added in chunks, and trained on a part of its rows."""
    settled = faiss_index.settle("ivf", {"nlist": 5}, N, D)
    matrix = torch.from_numpy(vectors)
    monkeypatch.setattr(faiss_index, "CHUNK", 100)
    monkeypatch.setattr(faiss_index, "TRAINED_ON", 300)
    trained = []
    ivf = faiss.IndexIVFFlat
    train = ivf.train
    monkeypatch.setattr(
        ivf, "train", lambda self, x: (trained.append(x), train(self, x))
    )
    index = faiss_index.build(matrix, "ivf", settled)
    (rows,) = trained
    assert len(np.unique(rows, axis=0)) == len(rows) == faiss_index.PER_CELL * 5
    assert {row.tobytes() for row in rows} <= {row.tobytes() for row in vectors}
    index.nprobe = 5
    assert sorted(index.search(vectors[:1], N)[1][0]) == list(range(N))


def test_what_faiss_searches_with_is_in_the_file(built):
    assert faiss.downcast_index(built["ivf"]).nprobe == 16
    graph = faiss.downcast_index(built["hnsw"]).hnsw
    assert (graph.efConstruction, graph.efSearch, graph.nb_neighbors(1)) == (
        256,
        128,
        32,
    )
    rotated = faiss.downcast_index(built["opq-ivf-pq"])
    cells = faiss.downcast_index(rotated.index)
    assert (cells.nlist, cells.nprobe, cells.pq.M) == (30, 16, 4)
    for index in (cells, faiss.downcast_index(built["pq"])):
        assert not index.do_polysemous_training


def test_defaults():
    settled = faiss_index.settle("opq-ivf-pq", {}, 1_000_000, 768)
    assert settled == {"pq_m": 192, "nlist": 4000, "nprobe": 400}
    assert faiss_index.settle("ivf", {}, 1170, 8) == {"nlist": 30, "nprobe": 16}
    assert faiss_index.settle("ivf", {"nlist": 9}, 1170, 8) == {"nlist": 9, "nprobe": 9}
    assert faiss_index.settle("ivf", {}, 5, 8) == {"nlist": 1, "nprobe": 1}
    assert faiss_index.settle("flat", {}, 1, 1) == {}


@pytest.mark.parametrize(
    ("form", "given", "passages", "message"),
    [
        ("flat", {"M": 8}, N, "form flat has no parameter M: it has none"),
        ("pq", {"nlist": 8}, N, "no parameter nlist: its parameters are pq_m"),
        ("hnsw", {"M": 1}, N, "M is 1; it starts at 2"),
        ("hnsw", {"efC": 0}, N, "efC is 0; it starts at 1"),
        ("pq", {"pq_m": 5}, N, "pq_m is 5, which does not divide the 16 dim"),
        ("opq-pq", {"pq_m": 5}, N, "pq_m is 5"),
        ("pq", {}, 255, "256 codes .* there are 255; use fp16"),
        ("ivf-pq", {}, 255, "256 codes"),
        ("ivf", {"nlist": N + 1}, N, "nlist is 1201, and there are 1200"),
        ("ivf", {"nlist": 4, "nprobe": 5}, N, "nprobe is 5 of 4 cells"),
    ],
)
def test_impossible_parameters_are_refused(form, given, passages, message):
    with pytest.raises(DenseHNError, match=message):
        faiss_index.settle(form, given, passages, D)


def test_a_rotation_of_more_dimensions_than_passages_is_refused():
    """In faiss it ends the process."""
    with pytest.raises(DenseHNError, match="of 384 dimensions, .* are 300; use ivf-pq"):
        faiss_index.settle("opq-ivf-pq", {}, 300, 384)


def test_few_passages_are_said_once(vectors, caplog, capfd):
    settled = faiss_index.settle("opq-pq", {}, N, D)
    assert caplog.messages == [
        "form opq-pq learns 256 centroids from 1200 passages, where faiss advises 9984"
    ]
    faiss_index.build(torch.from_numpy(vectors), "opq-pq", settled)
    assert capfd.readouterr() == ("", "")


# Pyserini's rule, from its own source: importing it takes a JVM.
def pyserini_source(module: str) -> ast.Module:
    package = Path(importlib.util.find_spec("pyserini").origin).parent
    return ast.parse((package / module).read_text())


def pyserinis_classes() -> dict[str, str]:
    """Its words for encoder classes, in its order, and the names of the classes."""
    for node in pyserini_source("encode/__init__.py").body:
        if isinstance(node, ast.Assign):
            (target,) = node.targets
            if target.id == "query_encoder_class_map":
                words, classes = node.value.keys, node.value.values
                return {w.value: c.id for w, c in zip(words, classes, strict=True)}
    raise AssertionError


@pytest.fixture(scope="module")
def choose(tmp_path_factory) -> Callable:
    """Which class its search.faiss makes of a path, and how: cls and no norm are asked."""
    (function,) = (
        node
        for node in pyserini_source("search/faiss/__main__.py").body
        if getattr(node, "name", "") == "init_query_encoder"
    )
    file = tmp_path_factory.mktemp("rule") / "rule.py"
    file.write_text(ast.unparse(function))
    spec = importlib.util.spec_from_file_location("rule", file)
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)

    def recorder(name):
        return lambda **kwargs: (name, kwargs)

    classes = pyserinis_classes()
    rule.query_encoder_class_map = {k: recorder(c) for k, c in classes.items()}
    rule.AutoQueryEncoder = recorder("AutoQueryEncoder")
    rule.resolve_device = lambda device, backend: device
    asked = {"max_length": 256, "pooling": "cls", "l2_norm": False, "prefix": None}

    def choose(path, given=None):
        return rule.init_query_encoder(path, given, None, "t", None, "cpu", **asked)

    return choose


PATHS = [
    *("work/x/models/star", "performance", "work/ance/star", "adore-star", "advances"),
    *("ance/auto", "bpr/ance", "ance/dse", "Ance/Sentence-x", "ance-openai", "openai"),
    *(f"a/{word}-b" for word in ENCODER_WORDS),
    *(f"A{word.upper()}B/c" for word in ENCODER_WORDS),
]


def test_words_are_pyserinis():
    assert list(ENCODER_WORDS) == list(pyserinis_classes())
    source = ast.unparse(pyserini_source("query_iterator.py"))
    assert all(repr(name) in source for name in ORDERED_TOPICS)
    known = next(line for line in source.splitlines() if "PREDEFINED_ORDER = " in line)
    assert set(ast.literal_eval(known.partition(" = ")[2])) == set(ORDERED_TOPICS)


@pytest.mark.parametrize("path", PATHS)
def test_an_encoders_name_is_taken_where_pyserini_takes_it_so(path, choose):
    def taken(architecture):
        try:
            require_recognised(path, architecture)
        except DenseHNError as error:
            assert path in str(error)
            return False
        return True

    made, how = choose(path)
    as_asked = made, how.get("pooling"), how.get("l2_norm")
    assert taken("auto") == (as_asked == ("AutoQueryEncoder", "cls", False))
    assert taken("ance") == (made == "AnceQueryEncoder")
    for architecture, name in (
        ("auto", "AutoQueryEncoder"),
        ("ance", "AnceQueryEncoder"),
    ):
        if taken(architecture):
            made, how = choose(path, architecture)
            assert made == name
            assert architecture == "ance" or how["pooling"] == "cls"


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("a/cacm/t.tsv", "topics", "reads topics in another format .* 'cacm'"),
        ("msmarco-passage-dev-subset.tsv", "topics", "for its own msmarco-passage-dev"),
        ("a/msmarco_doc_dev.txt", "topics", "for its own msmarco-doc-dev and fails"),
        ("indexes/bright-aops", "index", "when the path of index has 'bright-aops'"),
        ("queries/bpr", "encoded queries", "two vectors .* 'bpr' in it"),
    ],
)
def test_other_paths_are_refused(path, kind, message):
    with pytest.raises(DenseHNError, match=message):
        require_harmless(path, kind)


@pytest.mark.parametrize("architecture", ["ance", "auto"])
def test_the_class_is_always_said(architecture):
    """Left out, Pyserini takes it from the path, without a word."""
    settings = EncoderSettings(architecture=architecture)
    folder = f"{'ance' if architecture == 'ance' else 'models'}/star"
    command = search_command(settings, folder, "index", "t.tsv", "run.txt")
    assert command[:4] == ["--encoder-class", architecture, "--encoder", folder]
    assert ("--pooling" in command) == (architecture == "auto")


def test_paths_that_change_nothing():
    require_harmless("c/topics.test.tsv", "topics")
    require_harmless("msmarco-passage-dev-subset.2.tsv", "topics")
    require_harmless("indexes/bright", "index")
    require_harmless("queries/star", "encoded queries")


@pytest.fixture
def exported(roberta, corpus, tmp_path) -> tuple[Path, Vectors, str]:
    """A flat folder as exported but unchecked, its vectors, and its encoder's folder."""
    path = shutil.copytree(roberta, tmp_path / "ance")
    vectors = encode_corpus(DenseEncoder.load(str(path)), corpus, tmp_path / "vectors")
    (tmp_path / "index").mkdir()
    write_index(vectors, tmp_path / "index", "flat", {})
    return tmp_path / "index", vectors, str(path)


def check(folder: Path, vectors: Vectors, path: str) -> None:
    self_check(folder, vectors, DenseEncoder.load(path), path)


def test_the_manifest(exported, corpus):
    folder, _, path = exported
    facts = json.loads((folder / "manifest.json").read_text())
    assert facts.pop("command").startswith("python")
    assert facts == {
        "encoder": DenseEncoder.load(path).digest(),
        "corpus": corpus_digest(corpus),
        "passages": 48,
        "dimension": 768,
        "vectors": {"form": "flat"},
        "dense_hn": __version__,
        "files": [
            hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in ("index", "docid")
        ],
    }


def test_another_encoder_or_corpus_is_refused(exported, bert, tmp_path):
    folder, vectors, path = exported
    encoder, other = DenseEncoder.load(path), DenseEncoder.load(str(bert))
    manifest.require_belongs(folder, encoder, path)
    other.settings.passage_encoder = encoder.digest()
    manifest.require_belongs(folder, other, "one that was trained to search them")
    other.settings.passage_encoder = ""
    made, given = encoder.digest()[:12], other.digest()[:12]
    with pytest.raises(DenseHNError, match=f"index: .* {made}, and other .* {given};"):
        manifest.require_belongs(folder, other, "other")
    # The same of folders, as the runner of Pyserini's searches has them.
    manifest.require_searched_by(folder, path)
    other.save(tmp_path / "other")
    with pytest.raises(
        DenseHNError, match=f"index: .* {made}, and .*other .* {given};"
    ):
        manifest.require_searched_by(folder, tmp_path / "other")
    manifest.require_corpus(folder, vectors.corpus, "c")
    with pytest.raises(DenseHNError, match="index: made from the corpus .*, and c is"):
        manifest.require_corpus(folder, corpus_digest({"a": "b"}), "c")
    (folder / "manifest.json").unlink()
    with pytest.raises(DenseHNError, match="manifest.json: what this index was made"):
        manifest.require_belongs(folder, encoder, path)
    # Then only an encoder that was trained for an index knows of another.
    manifest.require_searched_by(folder, tmp_path / "other")
    for name, index in (
        ("of-this", folder / "index"),
        ("of-another", folder / "docid"),
    ):
        known = hashlib.sha256(index.read_bytes()).hexdigest()
        other.settings.passage_encoder = f"index:{known}"
        other.save(tmp_path / name)
    manifest.require_searched_by(folder, tmp_path / "of-this")
    with pytest.raises(DenseHNError, match="of-another was trained for another index"):
        manifest.require_searched_by(folder, tmp_path / "of-another")


def test_the_self_check_refuses_vectors_of_another_corpus(exported):
    folder, vectors, path = exported
    other = replace(vectors, corpus=corpus_digest({"a": "b"}))
    with pytest.raises(DenseHNError, match="index: made from the corpus .*/vectors is"):
        check(folder, other, path)


def test_a_docid_too_few_or_another_is_refused(exported):
    folder, *rest = exported
    lines = (folder / "docid").read_text().splitlines()
    (folder / "docid").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(DenseHNError, match="48 vectors in index, 47 lines in docid"):
        check(folder, *rest)
    (folder / "docid").write_text("\n".join([*lines[1:], lines[0]]) + "\n")
    with pytest.raises(DenseHNError, match="docid has not the docids of .*/vectors"):
        check(folder, *rest)


def without_head(path: str, file: str) -> None:
    """Remove the head from one of an encoder's files of weights."""
    file = Path(path) / file
    binary = file.suffix == ".bin"
    state = torch.load(file) if binary else load_file(file)
    del state["embeddingHead.weight"], state["embeddingHead.bias"]
    if binary:
        torch.save(state, file)
    else:
        save_file(state, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "model.safetensors",
            "checkpoint has no embeddingHead.bias, embeddingHead.weig",
        ),
        ("pytorch_model.bin", "bin: embeddingHead.weight is missing or other"),
    ],
)
def test_an_encoder_without_its_head_is_refused(exported, file, message):
    folder, vectors, path = exported
    without_head(path, file)
    encoder = DenseEncoder.load(path, passage_encoder=vectors.encoder)
    with pytest.raises(DenseHNError, match=message):
        self_check(folder, vectors, encoder, path)
    with pytest.raises(DenseHNError, match=message):
        export_index(vectors, folder.with_name("new"), {path: encoder})
    assert not list(folder.parent.glob("*new*"))


def test_a_pooler_that_is_not_used_may_be_missing(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "bare")
    bare = BertModel.from_pretrained(bert, add_pooling_layer=False)
    bare.save_pretrained(folder)
    assert DenseEncoder.load(str(folder)).made_up == []
    state = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    del state[name]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert DenseEncoder.load(str(folder)).made_up == [name]


def test_a_swapped_tokenizer_is_refused(exported, bert):
    """One of another size by the encoder, one of the same size by the digest."""
    folder, vectors, path = exported
    file = Path(path) / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = list(tokenizer["model"]["vocab"])
    numbers = [*range(5), *range(len(words) - 1, 4, -1)]
    tokenizer["model"]["vocab"] = dict(zip(words, numbers, strict=True))
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(DenseHNError, match="made from passages of the encoder"):
        check(folder, vectors, path)
    shutil.copy(bert / "tokenizer.json", file)
    with pytest.raises(DenseHNError, match="the tokenizer has"):
        check(folder, vectors, path)


def test_a_path_is_refused_before_pyserini_is_asked(exported, tmp_path):
    folder, vectors, path = exported
    moved = shutil.move(path, tmp_path / "star")
    with pytest.raises(DenseHNError, match="'ance' in its path.*ance/star"):
        check(folder, vectors, str(moved))
    settings = DenseEncoder.load(str(moved)).settings
    with pytest.raises(DenseHNError, match="'cacm'"):
        search_command(settings, "ance/star", "index", "cacm.tsv", "run.txt")


def test_a_sample_runs_from_the_shortest_to_the_longest():
    texts = ["x" * n for n in range(1, 101)]
    lengths = [len(text) for text in sample([*reversed(texts), "x" * 50])]
    assert lengths == [1, 15, 29, 43, 57, 71, 85, 100]
    assert sample(["b", "aa", "b"]) == ["b", "aa"]
