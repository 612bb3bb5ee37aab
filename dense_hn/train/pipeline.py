"""Runs a recipe: corpus → BM25 → STAR → ADORE → Pyserini index → runs → table.

Under the output folder it writes

    work/NAME/    collection, models/{base,star,adore}, vectors/{base,star},
                  indexes/{bm25,star}, stages.json
    runs/NAME/    a TREC run for each system, and the table
    qrels/NAME/   the qrels that the table was scored with
"""

import importlib.util
import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from dense_hn import DenseHNError, bm25, evaluate, pyserini, trec
from dense_hn.collections import pydoc
from dense_hn.collections.jsonl import read_corpus
from dense_hn.encode import Vectors, encode_corpus
from dense_hn.encoder import DenseEncoder, EncoderSettings, locate
from dense_hn.export import export_flat, require_plain, search_command
from dense_hn.files import digest, require_file, whole_file
from dense_hn.mine import retrieve
from dense_hn.train import adore, arguments, commands, star
from dense_hn.train.ledger import Ledger
from dense_hn.train.recipe import Recipe

# The table's rows: what a run's file is called, and its name in the table.
SYSTEMS = {
    "bm25": "BM25",
    "base": "untrained",
    "star": "STAR",
    "adore": "STAR+ADORE",
}


class Pipeline:
    """A recipe, the files it reads and writes, and its stages."""

    def __init__(self, recipe: Recipe, root: Path) -> None:
        """Check everything that can be checked before the first stage.

        Args:
            recipe: what to run.
            root: folder under which work/, runs/ and qrels/ are written.

        Raises:
            DenseHNError: no JDK, settings that a stage does not take, files of the
                collection or of the encoder that are not there.
        """
        self.recipe = recipe
        self.split = recipe.evaluate.topics
        self.work = root / "work" / recipe.name
        self.runs = root / "runs" / recipe.name
        self.qrels = root / "qrels" / recipe.name / f"{self.split}.txt"
        self.table = self.runs / f"table.{self.split}.txt"
        given = recipe.collection.folder
        self.collection = Path(given) if given else self.work / "collection"
        self.corpus = self.collection / "corpus" / "corpus.jsonl"
        self.ledger = Ledger(self.work / "stages.json")

        pyserini.java_home()
        require_plain(self.model("adore"))
        if importlib.util.find_spec("faiss") is None:
            raise DenseHNError("faiss is not installed; run `pip install faiss-cpu`")
        given_settings = dict(recipe.encoder)
        self.source = given_settings.pop("source", None)
        if not isinstance(self.source, str):
            raise DenseHNError("encoder: source is missing: a folder or a hub name")
        locate(self.source)
        typed = arguments.fill("encoder", EncoderSettings, given_settings)
        self.encoder_settings = {name: getattr(typed, name) for name in given_settings}
        self.star = commands.parse("star", self._star_argv())
        self.adore = commands.parse("adore", self._adore_argv())
        if given:
            require_file(self.corpus, "the collection's corpus")
            for split in ("train", self.split):
                require_file(self.topics(split), f"the collection's {split} topics")
                require_file(self.judged(split), f"the collection's {split} qrels")

    def model(self, name: str) -> Path:
        """Folder of an encoder: base, star or adore."""
        return self.work / "models" / name

    def vectors(self, name: str) -> Path:
        """Vectors folder of a passage encoder: base or star."""
        return self.work / "vectors" / name

    def index(self, name: str) -> Path:
        """An index that Pyserini opens: bm25 (Lucene) or star (faiss)."""
        return self.work / "indexes" / name

    def topics(self, split: str) -> Path:
        """Topics of train, dev or test."""
        return self.collection / f"topics.{split}.tsv"

    def judged(self, split: str) -> Path:
        """Qrels of train, dev or test."""
        return self.collection / f"qrels.{split}.txt"

    def hits(self, system: str, split: str) -> Path:
        """The run of a system."""
        return self.runs / f"{system}.{split}.txt"

    def _star_argv(self) -> list[str]:
        """STAR's arguments: the recipe's, and the files."""
        settings = {"negatives": ["base"]} | self.recipe.star
        names = settings.pop("negatives")
        if not isinstance(names, list) or not names or set(names) - {"bm25", "base"}:
            raise DenseHNError(f"star: negatives is {names}; give [bm25, base] or one")
        files = {
            "encoder": self.model("base"),
            "corpus": self.corpus,
            "topics": self.topics("train"),
            "qrels": self.judged("train"),
            "negatives": [self.hits(name, "train") for name in names],
            "output_dir": self.model("star"),
        }
        return _with_files("star", settings, files)

    def _adore_argv(self) -> list[str]:
        """ADORE's arguments: the recipe's, and the files."""
        files = {
            "encoder": self.model("star"),
            "vectors": self.vectors("star"),
            "topics": self.topics("train"),
            "qrels": self.judged("train"),
            "output_dir": self.model("adore"),
        }
        return _with_files("adore", self.recipe.adore, files)

    def run(self) -> None:
        """Run the stages that are not done."""
        stage, recipe = self.ledger.run, self.recipe
        depth = self.star[0].negatives_depth
        evaluated = (self.split, recipe.evaluate.hits)

        stage("collection", self._collection, [self.corpus], self._collection_key())
        judgements = _digests([self.topics(self.split), self.judged(self.split)])
        stage(
            f"topics.{self.split}", self._judged, [], judgements, after=["collection"]
        )
        stage("base", self._base, [self.model("base")], self._base_key())
        stage("bm25.index", self._index, [self.index("bm25")], after=["collection"])
        self._bm25("train", depth)
        self._bm25(*evaluated)
        self._encode("base", after=["collection", "base"])
        self._search("base", "base", "train", depth)
        self._search("base", "base", *evaluated)
        stage(
            "star",
            lambda: star.train(*self.star),
            [self.model("star")],
            recipe.star,
            after=["collection", "base", "bm25.train", "base.train"],
        )
        self._encode("star", after=["star"])
        self._search("star", "star", *evaluated)
        stage(
            "adore",
            lambda: adore.train(*self.adore),
            [self.model("adore")],
            recipe.adore,
            after=["star.encode"],
        )
        self._search("adore", "star", *evaluated, after=("adore",))
        stage("export", self._export, [self.index("star")], after=["star.encode"])
        stage(
            "evaluate",
            self._evaluate,
            [self.table, self.qrels],
            [recipe.evaluate.measures, judgements],
            after=[f"{system}.{self.split}" for system in SYSTEMS],
        )

    def report(self) -> str:
        """Time of the stages, how Pyserini searches the models, and the table."""
        lines = [self.ledger.summary()]
        for name in ("star", "adore"):
            command = search_command(
                EncoderSettings.of(EncoderSettings.saved(str(self.model(name)))),
                encoder=self.model(name),
                index=self.index("star"),
                topics=self.topics(self.split),
                output=self.runs / f"pyserini-{name}.{self.split}.txt",
                hits=self.recipe.evaluate.hits,
            )
            lines += ["", f"{SYSTEMS[name]} in Pyserini:"]
            lines += [f"python -m dense_hn.pyserini search.faiss {shlex.join(command)}"]
        table = self.table.read_text(encoding="utf-8").rstrip()
        return "\n".join(
            [*lines, "", f"{self.recipe.name}, {self.split} topics", table]
        )

    def _collection_key(self) -> list[str]:
        packages = self.recipe.collection.pydoc
        if packages:
            return [sys.version, *packages, pydoc.sources_digest(packages)]
        return _digests([self.corpus, self.topics("train"), self.judged("train")])

    def _collection(self) -> None:
        if self.recipe.collection.pydoc:
            pydoc.build(self.collection, self.recipe.collection.pydoc)
        corpus = read_corpus(self.corpus)
        topics, qrels = trec.read_judged(self.topics("train"), self.judged("train"))
        trec.require_known(qrels, corpus, self.judged("train"), self.corpus)
        adore.require_negatives(self.adore[0], topics, qrels, len(corpus))

    def _judged(self) -> None:
        """Check the evaluated topics: what is judged is there."""
        topics, qrels = self.topics(self.split), self.judged(self.split)
        judged = trec.read_qrels(qrels)
        trec.require_covered(judged, trec.read_topics(topics), qrels, topics, "text")
        trec.require_known(judged, read_corpus(self.corpus), qrels, self.corpus)

    def _index(self) -> None:
        bm25.index(read_corpus(self.corpus), self.index("bm25"))

    def _bm25(self, split: str, hits: int) -> None:
        section = self.recipe.bm25

        def search() -> None:
            topics = trec.read_topics(self.topics(split))
            run = bm25.search(self.index("bm25"), topics, hits, section.k1, section.b)
            trec.write_run(self.hits("bm25", split), run, "bm25")

        self.ledger.run(
            f"bm25.{split}",
            search,
            [self.hits("bm25", split)],
            [asdict(section), hits, digest(self.topics(split))],
            after=["bm25.index"],
        )

    def _base_key(self) -> list:
        source = Path(locate(self.source))
        files = sorted(path for path in source.rglob("*") if path.is_file())
        return [self.source, self.encoder_settings, _digests(files)]

    def _base(self) -> None:
        DenseEncoder.load(self.source, **self.encoder_settings).save(self.model("base"))

    def _encode(self, name: str, after: list[str]) -> None:
        def encode() -> None:
            encoder = DenseEncoder.load(str(self.model(name)))
            corpus = read_corpus(self.corpus)
            encode_corpus(encoder, corpus, self.vectors(name))

        self.ledger.run(f"{name}.encode", encode, [self.vectors(name)], after=after)

    def _search(
        self,
        name: str,
        passages: str,
        split: str,
        hits: int,
        after: tuple[str, ...] = (),
    ) -> None:
        def search() -> None:
            encoder = DenseEncoder.load(str(self.model(name)))
            vectors = Vectors.load(self.vectors(passages))
            topics = trec.read_topics(self.topics(split))
            run = retrieve(encoder, vectors, topics, hits)
            trec.write_run(self.hits(name, split), run, name)

        self.ledger.run(
            f"{name}.{split}",
            search,
            [self.hits(name, split)],
            [hits, digest(self.topics(split))],
            after=[f"{passages}.encode", *after],
        )

    def _export(self) -> None:
        export_flat(Vectors.load(self.vectors("star")), self.index("star"))

    def _evaluate(self) -> None:
        qrels = trec.read_qrels(self.judged(self.split))
        trec.write_qrels(self.qrels, qrels)
        runs = {
            SYSTEMS[name]: trec.read_run(self.hits(name, self.split))
            for name in SYSTEMS
        }
        rows = evaluate.compare(qrels, runs, self.recipe.evaluate.measures)
        for path, text in (
            (self.table.with_suffix(".json"), json.dumps(rows, indent=2)),
            (self.table, evaluate.table(rows)),
        ):
            with whole_file(path) as partial:
                partial.write_text(f"{text}\n", encoding="utf-8")


def _with_files(stage: str, settings: Mapping, files: Mapping) -> list[str]:
    for name in files:
        if name in settings:
            raise DenseHNError(f"{stage}: {name} is filled in by the recipe; remove it")
    return arguments.argv_of({**settings, **files})


def _digests(files: Iterable[Path]) -> list[str]:
    return [digest(path) for path in files]
