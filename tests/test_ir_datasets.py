"""ir_datasets as a source, reading files laid out as it keeps its downloads."""

import json
import shutil
import sys
import zipfile

import pytest

from dense_hn import DenseHNError, trec
from dense_hn.check import __main__ as check
from dense_hn.collections import beir, ir, sources
from dense_hn.collections.corpus import read_corpus
from dense_hn.train import recipe
from dense_hn.train.pipeline import Pipeline

PASSAGES = {
    "train": "msmarco-passage/train",
    "dev": "msmarco-passage/dev/small",
    "dl19": "msmarco-passage/trec-dl-2019",
    "eval": "msmarco-passage/eval/small",
}


@pytest.fixture
def home(ir_home, ir_datasets_in, tmp_path):
    """A copy of its folder, which it uses."""
    shutil.copytree(ir_home, tmp_path / "home")
    with ir_datasets_in(tmp_path / "home"):
        yield tmp_path / "home"


def test_msmarco_passages(home, corpus, topics, qrels):
    before = ir.digests(PASSAGES)
    found = ir.read(PASSAGES)
    # A download, or what is built beside it, is no other content.
    assert (home / "msmarco-passage" / "collection.tsv").exists()
    assert ir.digests(PASSAGES) == before != ir.digests("beir/scifact")

    number = {docid: str(7 * n) for n, docid in enumerate(corpus)}
    assert found.corpus == {number[d]: text.strip() for d, text in corpus.items()}
    queries = {str(1000 + n): text for n, text in enumerate(topics.values())}
    qids = list(queries)
    for split, part in (
        ("train", qids),
        ("dev", qids[12:18]),
        ("dl19", qids[18:]),
        ("eval", qids[22:]),
    ):
        assert found.topics[split] == {qid: queries[qid] for qid in part}
    renamed = [{number[d]: 1 for d in judged} for judged in qrels.values()]
    assert found.qrels["train"] == dict(zip(qids[:12], renamed[:12], strict=True))
    assert found.qrels["dev"] == dict(zip(qids[12:18], renamed[12:18], strict=True))
    for qid, [docid] in zip(qids[18:22], renamed[18:22], strict=True):
        graded = {str(int(docid) + 7 * (grade - 3)): grade for grade in range(4)}
        assert found.qrels["dl19"][qid] == graded
    assert found.titled is None
    assert found.qrels.keys() == {"train", "dev", "dl19"}
    assert found.left_out == {"repeated judgements (the highest counts)": 1}
    assert ir.splits(PASSAGES) == {
        "train": True,
        "dev": True,
        "dl19": True,
        "eval": False,
    }


def test_what_is_not_judged_is_left_out_and_counted(home, tmp_path, caplog):
    caplog.set_level("INFO", "dense_hn")
    sources.build("ir_datasets", PASSAGES, tmp_path / "out")
    numbers = {
        s: len(trec.read_topics(tmp_path / "out" / f"topics.{s}.tsv")) for s in PASSAGES
    }
    assert numbers == {"train": 12, "dev": 6, "dl19": 4, "eval": 2}
    assert not (tmp_path / "out" / "qrels.eval.txt").exists()
    assert (
        "12 train topics that are not judged, 2 dl19 topics that are not" in caplog.text
    )


def test_an_msmarco_document_is_what_the_paper_reads(home, corpus):
    read = ir.read({"dev": "msmarco-document/dev"})
    # It starts with its address.
    assert read.titled == 0
    found = read.corpus
    assert list(found) == [f"D{7 * n}" for n in range(len(corpus))]
    for n, (docid, text) in enumerate(corpus.items()):
        body = f"{text.strip()} {'and so on ' * (n % 3 * 1000)}".strip()
        whole = f"https://x.org/{docid}<sep>{docid.title()}<sep>{body}"
        assert found[f"D{7 * n}"] == whole[:10_000]
    assert max(map(len, found.values())) == 10_000


def test_a_leak_is_found(home, tmp_path, monkeypatch, capsys):
    """By the check: all that is judged for dev stands in the training topics as well."""
    report = tmp_path / "report.json"
    spec = "ir_datasets:{train: msmarco-passage/train, dev: msmarco-passage/dev/small}"
    monkeypatch.setattr(sys, "argv", ["check", spec, "--output", str(report)])
    with pytest.raises(SystemExit) as exited:
        check.main()
    assert exited.value.code == 1
    found = json.loads(report.read_text())
    errors = {
        f["name"]: f["count"] for f in found["findings"] if f["severity"] == "error"
    }
    assert errors == {
        "shared topic ids: train, dev": 6,
        "shared query texts: train, dev": 6,
    }
    assert found["figures"]["corpus"]["texts"] == 48


def test_a_beir_id_is_the_beir_folder(home, tmp_path):
    with zipfile.ZipFile(home / "beir" / "scifact" / "source.zip") as archive:
        archive.extractall(tmp_path)
    sources.build("beir", tmp_path / "scifact", tmp_path / "folder")
    sources.build("ir_datasets", "beir/scifact", tmp_path / "id")
    one, two = (
        {p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.*")}
        for name in ("folder", "id")
    )
    assert one == two
    assert len(one) == 7
    assert ir.splits("beir/scifact") == {"train": True, "test": True}
    assert sources.splits("ir_datasets", "beir/scifact")["dev"]
    assert ir.splits("beir/nq") == {"test": True}
    one, two = (
        module.read(value).titled
        for module, value in ((beir, tmp_path / "scifact"), (ir, "beir/scifact"))
    )
    assert one == two == 48


def test_of_several_judgements_the_highest_counts(home):
    with open(home / "msmarco-passage" / "trec-dl-2019" / "qrels", "a") as file:
        file.write("1018 Q0 0 1\n1018 Q0 0 3\n1018 Q0 0 2\n1018 Q0 999999 3\n")
    found = ir.read({"test": "msmarco-passage/trec-dl-2019/judged"})
    assert found.qrels["test"]["1018"]["0"] == 3
    assert "999999" not in found.qrels["test"]["1018"]
    assert found.left_out == {
        "repeated judgements (the highest counts)": 2,
        "judgements of documents that are not in the corpus": 1,
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("beir/scifacts", "unknown id 'beir/scifacts'; did you mean 'beir/scifact'"),
        ({"train": "msmarco-passage/trian"}, "did you mean 'msmarco-passage/train'"),
        (
            {"train": "beir/scifact/train", "test": "beir/nfcorpus/test"},
            r"splits train, test are of different corpora \(beir/scifact, beir/nfc",
        ),
        ({"a/b": "beir/nq"}, "files are named after the split 'a/b'"),
        ({"train": ["beir/nq"]}, "expected an id or {SPLIT: ID}"),
        (["beir/nq"], "expected an id or {SPLIT: ID}"),
        ("gov2", "gov2 has no queries"),
        ("clinicaltrials/2017/trec-pm-2017", "ClinicalTrialsDoc has no default text"),
    ],
)
def test_an_id_that_cannot_be_is_refused_before_a_download(home, value, message):
    with pytest.raises(DenseHNError, match=message):
        sources.digests("ir_datasets", value)


def test_a_failed_download_says_where_its_file_belongs(home, tmp_path):
    folder = home / "msmarco-passage"
    (folder / "train" / "qrels").unlink()
    with pytest.raises(DenseHNError) as error:
        sources.build("ir_datasets", PASSAGES, tmp_path / "out")
    address = "https://msmarco.z22.web.core.windows.net/msmarcoranking/qrels.train.tsv"
    assert str(error.value).startswith(
        f"ir_datasets: msmarco-passage/train could not be read: {address} did not come; "
        "fetch it where there is a network, and place it as "
        f"{folder / 'train' / 'qrels'} (ProxyError: "
    )
    assert "\n" not in str(error.value)
    # The corpus was not begun.
    assert not (folder / "collection.tsv").exists()
    assert not (tmp_path / "out").exists()


def test_a_broken_archive_is_told(home):
    path = home / "beir" / "scifact" / "source.zip"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DenseHNError) as error:
        ir.read("beir/scifact")
    assert str(error.value) == (
        "ir_datasets: beir/scifact/train could not be read: https://ir-datasets.com/"
        f"beir.html says where its files are from, and they belong in {home / 'beir'} "
        "(BadZipFile: File is not a zip file)"
    )


def test_ids_with_white_space_are_refused(home):
    with zipfile.ZipFile(home / "beir" / "scifact" / "source.zip", "a") as archive:
        lines = archive.read("scifact/corpus.jsonl").decode()
        record = {"_id": "a b", "title": "", "text": "x"}
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("scifact/corpus.jsonl", f"{lines}{json.dumps(record)}\n")
    with pytest.raises(DenseHNError, match="doc_id 'a b' is empty or has white space"):
        ir.read("beir/scifact")


def test_a_recipe_refuses_a_split_without_judgements(home, bert, tmp_path):
    path = tmp_path / "passages.yaml"
    settings = {
        "collection": {"ir_datasets": PASSAGES},
        "encoder": {"source": str(bert)},
    }
    path.write_text(json.dumps(settings))

    def plan(split):
        changed = recipe.read(str(path), [f"evaluate.topics={split}"])
        return Pipeline(changed, tmp_path / "out").ledger.stages

    assert {"topics.dl19", "bm25.dl19", "base.dl19"} < plan("dl19").keys()
    with pytest.raises(DenseHNError, match="eval topics are not judged.*dense_hn.mine"):
        plan("eval")
    with pytest.raises(
        DenseHNError, match="unknown split 'dl20'; there are train, dev, dl19, eval"
    ):
        plan("dl20")
    assert not (home / "msmarco-passage" / "collection.tsv").exists()


def test_a_recipe_without_training_needs_no_training_topics(home, bert, tmp_path):
    """An encoder as it is, on a collection that has only a test split."""
    path = tmp_path / "as-it-is.yaml"
    ids = {"test": "msmarco-passage/trec-dl-2019"}
    settings = {"collection": {"ir_datasets": ids}, "encoder": {"source": str(bert)}}
    path.write_text(json.dumps(settings))
    pipeline = Pipeline(recipe.read(str(path)), tmp_path / "out")
    for name in ("collection", "topics.test", "base", "base.encode", "base.test"):
        pipeline.ledger.stages[name].work()
    run = trec.read_run(tmp_path / "out" / "runs" / "as-it-is" / "base.test.txt")
    made = tmp_path / "out" / "work" / "as-it-is" / "collection"
    assert run.keys() == trec.read_topics(made / "topics.test.tsv").keys()
    assert len(read_corpus(made / "corpus" / "corpus.jsonl")) == 48
