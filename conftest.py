"""A collection and encoders small enough to train in a test, made here."""

import gzip
import io
import json
import os
import random
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    RobertaConfig,
    RobertaTokenizerFast,
)

from dense_hn import anserini, cache, pyserini, trec
from dense_hn.collections.corpus import write_corpus
from dense_hn.encoder import AnceModel, DenseEncoder
from dense_hn.encoder_settings import EncoderSettings
from dense_hn.export import self_check

COLOURS = ["red", "green", "blue", "black", "white", "amber"]
THINGS = ["lamp", "door", "chair", "clock", "river", "stone", "train", "apple"]


@pytest.fixture(scope="session", autouse=True)
def kept_apart(tmp_path_factory) -> Iterator[None]:
    """A cache that no test finds full, and that leaves nothing behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.VARIABLE, str(tmp_path_factory.mktemp("cache")))
        if "PYTEST_XDIST_WORKER" in os.environ:
            # Workers share the cores, and so do the commands that they start.
            patch.setenv("OMP_NUM_THREADS", "1")
            torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def corpus() -> dict[str, str]:
    """48 passages of different lengths, one for each colour and thing."""
    return {
        f"{colour}-{thing}": f"the {colour} {thing} " + "is old and heavy " * (n % 5)
        for colour in COLOURS
        for n, thing in enumerate(THINGS)
    }


@pytest.fixture(scope="session")
def topics() -> dict[str, str]:
    """A query for each of 24 passages."""
    pairs = [(c, t) for c in COLOURS for t in THINGS[::2]]
    return {f"q{n}": f"where is a {t} , {c}" for n, (c, t) in enumerate(pairs)}


@pytest.fixture(scope="session")
def qrels(topics) -> dict[str, dict[str, int]]:
    """One relevant passage a query, and a second one for the first query."""
    qrels = {}
    for qid, text in topics.items():
        *_, thing, _, colour = text.split()
        qrels[qid] = {f"{colour}-{thing}": 1}
    qrels["q0"]["red-stone"] = 2
    return qrels


@pytest.fixture(scope="session")
def run(corpus, topics) -> dict[str, dict[str, float]]:
    """A run that lists 20 passages, relevant ones among them, for every query."""
    docids = sorted(corpus)
    return {
        qid: {docids[(7 * n + 5 * i) % len(docids)]: 20.0 - i for i in range(20)}
        for n, qid in enumerate(topics)
    }


@pytest.fixture(scope="session")
def contest() -> tuple[
    dict[str, dict[str, int]], dict[str, dict[str, dict[str, float]]]
]:
    """Graded qrels of 30 topics, and three runs of up to 60 hits that an evaluation can
    stumble over.

    Grades go from -1 to 3. Most documents are not judged, q0 to q2 have nothing relevant,
    q3 nothing above grade 1. Scores tie. The runs lack q4 and q5 and have two topics
    without judgements.
    """
    rng = random.Random(5)
    docids = [f"d{n}" for n in range(200)]
    qrels = {
        f"q{n}": {
            docid: rng.randint(-1, 0 if n < 3 else 1 if n == 3 else 3)
            for docid in rng.sample(docids, 15)
        }
        for n in range(30)
    }
    topics = [f"q{n}" for n in range(32) if n not in (4, 5)]
    runs = {}
    for name, skill in (("plain", 0), ("good", 2), ("better", 3)):
        runs[name] = {
            qid: {
                docid: float(
                    rng.randint(0, 9) + skill * qrels.get(qid, {}).get(docid, 0)
                )
                for docid in rng.sample([*docids, *qrels.get(qid, ())], 70)[:60]
            }
            for qid in topics
        }
    return qrels, runs


@pytest.fixture(scope="session")
def files_in(corpus, topics, qrels, run) -> Callable[[Path], dict[str, Path]]:
    """Writes the collection above as files: corpus, topics, qrels, run."""

    def write(folder: Path) -> dict[str, Path]:
        paths = {
            "corpus": folder / "corpus.jsonl",
            "topics": folder / "topics.tsv",
            "qrels": folder / "qrels.txt",
            "run": folder / "run.txt",
        }
        write_corpus(paths["corpus"], corpus)
        trec.write_topics(paths["topics"], topics)
        trec.write_qrels(paths["qrels"], qrels)
        trec.write_run(paths["run"], run, "made")
        return paths

    return write


@pytest.fixture
def files(tmp_path, files_in) -> dict[str, Path]:
    """These files, of this test's own."""
    return files_in(tmp_path)


@pytest.fixture(scope="session")
def split_folder_in(corpus, topics, qrels) -> Callable[[Path], Path]:
    """Writes a collection folder: 12 topics to train on, 6 for dev, 6 for test."""

    def write(folder: Path) -> Path:
        write_corpus(folder / "made" / "corpus" / "corpus.jsonl", corpus)
        qids = list(topics)
        for split, part in (
            ("train", qids[:12]),
            ("dev", qids[12:18]),
            ("test", qids[18:]),
        ):
            chosen = {qid: topics[qid] for qid in part}
            trec.write_topics(folder / "made" / f"topics.{split}.tsv", chosen)
            judged = {qid: qrels[qid] for qid in part}
            trec.write_qrels(folder / "made" / f"qrels.{split}.txt", judged)
        return folder / "made"

    return write


@pytest.fixture
def split_folder(tmp_path, split_folder_in) -> Path:
    """A collection folder of this test's own, as split_folder_in writes it."""
    return split_folder_in(tmp_path)


@pytest.fixture
def small_recipe(tmp_path, split_folder, bert) -> Path:
    """STAR and ADORE of four steps each, with a checkpoint after every step."""
    path = tmp_path / "small.yaml"
    settings = "{max_steps: 4, use_cpu: true, save_minutes: 1e-9, learning_rate: 1e-3}"
    path.write_text(
        f"collection: {{folder: {split_folder}}}\nencoder: {{source: {bert}}}\n"
        "evaluate: {hits: 20, measures: [RR@10]}\n"
        f"star: {settings}\nadore: {settings}\n"
    )
    return path


@pytest.fixture(scope="module")
def pyserini_here() -> Iterator[None]:
    """Lets recipes index for BM25, and look into what they export, with Pyserini in the
    test's own process.

    It is as real as in a process of its own, which needs a quarter of a minute to load it
    each time. What is started there, and what is made of its failures, is for other
    modules.
    """

    def run(arguments: Iterable[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["dense_hn.pyserini", *arguments])
            pyserini.main()

    def search(arguments: Sequence[str], output: Path, _: str) -> trec.Run:
        run(arguments)
        return trec.read_run(output)

    def index(command: Sequence[str], folder: Path, *rest: object) -> None:
        # Java keeps the working directory that it was started in.
        run(word.replace(str(folder), str(folder.resolve())) for word in command)
        assert anserini.count(folder) == rest[1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_check, "in_pyserini", search)
        patch.setattr(anserini, "index", index)
        yield


# `python -m dense_hn.train`, but for the process that an export starts.
TRAIN_HERE = """
import sys
from dense_hn import cli, pyserini, trec
from dense_hn.export import self_check
from dense_hn.train.__main__ import main

def search(arguments, output, _):
    words = sys.argv
    sys.argv = ["dense_hn.pyserini", *arguments]
    pyserini.main()
    sys.argv = words
    return trec.read_run(output)

self_check.in_pyserini = search
cli.run(main)
"""


@pytest.fixture(scope="session")
def train_command(tmp_path_factory) -> list[str]:
    """As ``pyserini_here``, for a recipe in a process of its own: stands for
    `python -m dense_hn.train`.
    """
    script = tmp_path_factory.mktemp("train") / "train.py"
    script.write_text(TRAIN_HERE)
    return [sys.executable, str(script)]


def _lines(rows) -> bytes:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="session")
def ir_home(tmp_path_factory, corpus, topics, qrels) -> Path:
    """The files of MS MARCO and SciFact where ir_datasets keeps its downloads.

    Names, formats, archives and kinds of ids are the originals'; the content is the
    collection above: 12 topics for train, 6 for dev, 4 for TREC DL (judged in four
    grades, 2 more without judgements), 2 for eval. The n-th passage is 7n, the n-th
    topic 1000 + n; documents are D7n. One training judgement is there twice.
    """
    home = tmp_path_factory.mktemp("ir_datasets")
    number = {docid: 7 * n for n, docid in enumerate(corpus)}
    queries = [(1000 + n, text) for n, text in enumerate(topics.values())]
    answers = [
        [(1000 + n, 0, number[docid], 1) for docid in judged]
        for n, judged in enumerate(qrels.values())
    ]
    train, dev, dl, ev = slice(0, 12), slice(12, 18), slice(18, 22), slice(22, 24)
    train_qrels = [row for rows in answers[train] for row in rows]
    train_qrels.append(train_qrels[0])
    dev_qrels = [row for rows in answers[dev] for row in rows]
    graded = [
        (qid, "Q0", docid + 7 * (grade - 3), grade)
        for [(qid, _, docid, _)] in answers[dl]
        for grade in (3, 2, 1, 0)
    ]
    dl_queries = _lines(queries[dl] + queries[ev])

    folder = home / "msmarco-passage"
    passages = _lines(zip(number.values(), corpus.values(), strict=True))
    _write_tar(
        folder / "collectionandqueries.tar.gz",
        {
            "collection.tsv": passages,
            "queries.dev.small.tsv": _lines(queries[dev]),
            "qrels.dev.small.tsv": _lines(dev_qrels),
            "queries.eval.small.tsv": _lines(queries[ev]),
        },
    )
    # Also the topics that nobody judged.
    _write_tar(folder / "queries.tar.gz", {"queries.train.tsv": _lines(queries)})
    _write(folder / "train" / "qrels", _lines(train_qrels))
    # The only one that is not kept as it came.
    _write(folder / "trec-dl-2019" / "queries.tsv", dl_queries)
    _write(folder / "trec-dl-2020" / "queries.tsv.gz", gzip.compress(dl_queries))
    for year in ("trec-dl-2019", "trec-dl-2020"):
        spaced = _lines(graded).replace(b"\t", b" ")
        _write(folder / year / "qrels", spaced)

    folder = home / "msmarco-document"
    documents = "".join(
        f"<DOC>\n<DOCNO>D{number[docid]}</DOCNO>\n<TEXT>\nhttps://x.org/{docid}\n"
        f"{docid.title()}\n{text}\n\n{'and so on ' * (n % 3 * 1000)}\n</TEXT>\n</DOC>\n"
        for n, (docid, text) in enumerate(corpus.items())
    )
    _write(folder / "collection.tsv.gz", gzip.compress(documents.encode()))
    for split, part, judged in (
        ("train", train, train_qrels[:-1]),
        ("dev", dev, dev_qrels),
        ("eval", ev, []),
    ):
        asked = gzip.compress(_lines(queries[part]))
        _write(folder / split / "queries.tsv.gz", asked)
        judged = [(qid, 0, f"D{docid}", 1) for qid, _, docid, _ in judged]
        _write(folder / split / "qrels.gz", gzip.compress(_lines(judged)))
    for year in ("trec-dl-2019", "trec-dl-2020"):
        _write(folder / year / "queries.tsv.gz", gzip.compress(dl_queries))
        judged = [(qid, "Q0", f"D{docid}", grade) for qid, _, docid, grade in graded]
        _write(folder / year / "qrels", _lines(judged).replace(b"\t", b" "))

    (home / "beir" / "scifact").mkdir(parents=True)
    header = [("query-id", "corpus-id", "score")]
    with zipfile.ZipFile(home / "beir" / "scifact" / "source.zip", "w") as archive:
        for name, records in (
            ("corpus", [(number[d], d.title(), text) for d, text in corpus.items()]),
            ("queries", [(qid, None, text) for qid, text in queries]),
        ):
            lines = ""
            for found, title, text in records:
                record = {"_id": str(found), "text": text, "metadata": {}}
                record |= {"title": title} if title else {}
                lines += f"{json.dumps(record)}\n"
            archive.writestr(f"scifact/{name}.jsonl", lines)
        for split, judged in (("train", train_qrels[:-1]), ("test", dev_qrels)):
            rows = header + [(qid, docid, level) for qid, _, docid, level in judged]
            archive.writestr(f"scifact/qrels/{split}.tsv", _lines(rows))
    return home


@pytest.fixture(scope="session")
def ir_datasets_in() -> Callable[[Path], AbstractContextManager[None]]:
    """Lets ir_datasets keep its files in a folder, and have no way to the network."""

    def forget() -> None:
        # It looks for its folder when it is imported.
        for name in list(sys.modules):
            if name.partition(".")[0] == "ir_datasets":
                del sys.modules[name]

    @contextmanager
    def use(home: Path) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("IR_DATASETS_HOME", str(home))
            patch.setenv("IR_DATASETS_DL_TRIES", "1")
            for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
                patch.setenv(name, "http://127.0.0.1:9")
            for name in ("no_proxy", "NO_PROXY"):
                patch.delenv(name, raising=False)
            forget()
            yield
            forget()

    return use


@pytest.fixture(scope="session")
def bert(tmp_path_factory, corpus, topics) -> Path:
    """Folder of a two-layer BERT encoder with mean pooling and L2 normalisation."""
    folder = tmp_path_factory.mktemp("bert")
    words = {w for text in [*corpus.values(), *topics.values()] for w in text.split()}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *sorted(words)]) + "\n")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    settings = EncoderSettings(
        pooling="mean", l2_norm=True, query_length=16, passage_length=32, scale=20
    )
    DenseEncoder(BertModel(config), tokenizer, settings).save(folder / "encoder")
    return folder / "encoder"


@pytest.fixture(scope="session")
def roberta(tmp_path_factory, corpus, topics) -> Path:
    """Folder of a one-layer encoder in the `ance` layout, byte-level BPE trained here."""
    folder = tmp_path_factory.mktemp("roberta")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        [*corpus.values(), *topics.values()],
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    )
    bpe.save_model(str(folder))
    tokenizer = RobertaTokenizerFast(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")
    )
    torch.manual_seed(7)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=130,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
    )
    settings = EncoderSettings(architecture="ance", passage_length=32)
    DenseEncoder(AnceModel(config), tokenizer, settings).save(folder / "encoder")
    return folder / "encoder"


# What config.json held when the checkpoints of ANCE (transformers 2.3) and DRhard (3.4)
# were saved, but for the sizes.
OLD_CONFIGS = {
    "RobertaDot_NLL_LN": {
        "attention_probs_dropout_prob": 0.1,
        "bos_token_id": 0,
        "do_sample": False,
        "eos_token_ids": 0,
        "finetuning_task": "msmarco",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "initializer_range": 0.02,
        "is_decoder": False,
        "label2id": {"LABEL_0": 0, "LABEL_1": 1},
        "layer_norm_eps": 1e-05,
        "length_penalty": 1.0,
        "max_length": 20,
        "num_beams": 1,
        "num_labels": 2,
        "num_return_sequences": 1,
        "output_attentions": False,
        "output_hidden_states": False,
        "output_past": True,
        "pad_token_id": 0,
        "pruned_heads": {},
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
        "torchscript": False,
        "type_vocab_size": 1,
        "use_bfloat16": False,
    },
    "RobertaDot": {
        "attention_probs_dropout_prob": 0.1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "finetuning_task": "msmarco",
        "gradient_checkpointing": True,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-05,
        "model_type": "roberta",
        "pad_token_id": 1,
        "return_dict": False,
        "type_vocab_size": 1,
    },
}
OLD_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "max_position_embeddings": 258,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
}


@pytest.fixture(scope="session")
def old_checkpoint(tmp_path_factory, roberta) -> Callable[[str], Path]:
    """Makes the folder of a checkpoint as ANCE's and DRhard's code left it, by hand.

    Called with the name of their class, for weights, config and tokenizer files alone.
    """

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("old") / name
        folder.mkdir()
        for file in ("vocab.json", "merges.txt"):
            shutil.copy(roberta / file, folder)
        vocabulary = len(json.loads((folder / "vocab.json").read_text()))
        config = OLD_CONFIGS[name] | OLD_SIZES | {"architectures": [name]}
        config |= {"vocab_size": vocabulary}
        (folder / "config.json").write_text(
            json.dumps(config, indent=2, sort_keys=True)
        )
        layer = "encoder.layer.0."
        shapes = {
            "embeddings.word_embeddings": (vocabulary, 16),
            "embeddings.position_embeddings": (258, 16),
            "embeddings.token_type_embeddings": (1, 16),
            layer + "attention.self.query": (16, 16),
            layer + "attention.self.key": (16, 16),
            layer + "attention.self.value": (16, 16),
            layer + "attention.output.dense": (16, 16),
            layer + "intermediate.dense": (32, 16),
            layer + "output.dense": (16, 32),
        }
        norms = ["embeddings.LayerNorm", layer + "attention.output.LayerNorm"]
        norms += [layer + "output.LayerNorm"]
        shapes = {f"roberta.{key}": shape for key, shape in shapes.items()}
        norms = {f"roberta.{key}": 16 for key in norms} | {"norm": 768}
        shapes["embeddingHead"] = (768, 16)
        if name == "RobertaDot_NLL_LN":
            shapes["roberta.pooler.dense"] = shapes["classifier.dense"] = (16, 16)
            shapes["classifier.out_proj"] = (2, 16)
        torch.manual_seed(11)
        state = {}
        for key, shape in shapes.items():
            state[f"{key}.weight"] = 0.5 * torch.randn(shape)
            if not key.endswith("_embeddings"):
                state[f"{key}.bias"] = 0.5 * torch.randn(shape[0])
        for key, size in norms.items():
            state[f"{key}.weight"] = 1 + 0.1 * torch.randn(size)
            state[f"{key}.bias"] = 0.1 * torch.randn(size)
        if name == "RobertaDot_NLL_LN":
            tokenizer = {"do_lower_case": True, "max_len": 512}
            (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
            special = {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
            (folder / "special_tokens_map.json").write_text(json.dumps(special))
        else:
            state["roberta.embeddings.position_ids"] = torch.arange(258)[None]
        torch.save(
            state,
            folder / "pytorch_model.bin",
            _use_new_zipfile_serialization=name != "RobertaDot_NLL_LN",
        )
        return folder

    return make
