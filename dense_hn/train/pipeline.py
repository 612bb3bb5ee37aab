"""Runs a recipe: corpus → BM25 → training stages → Pyserini indexes → runs → table.

:meth:`Pipeline._plan` is the path of the data; what it is called, :mod:`places` tells.
"""

from collections.abc import Iterable
from dataclasses import MISSING, Field, asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from dense_hn import DenseHNError, bm25, cross_encoder, java, maxp, trec
from dense_hn.collections import sources
from dense_hn.collections.collection import run_file
from dense_hn.collections.corpus import read_corpus
from dense_hn.cross_encoder import CrossEncoder
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.encoder_settings import CARD, EncoderSettings
from dense_hn.evaluate import measures, significance, table
from dense_hn.export import faiss_index
from dense_hn.export.folder import export_index
from dense_hn.files import digest, require_file, whole_file
from dense_hn.index import read_vectors
from dense_hn.mine import mine
from dense_hn.names import unknown
from dense_hn.pretrained import locate
from dense_hn.rerank import rerank_together
from dense_hn.search_command import as_typed, require_plain, search_command
from dense_hn.train import adore, arguments, card, commands, curves
from dense_hn.train.ledger import Ledger
from dense_hn.train.places import Places
from dense_hn.train.recipe import Recipe, TrainingSection, as_yaml
from dense_hn.train.trainer import log_of
from dense_hn.train.training_arguments import DenseTrainingArguments
from dense_hn.vectors import Vectors

# Settings that name runs of the training topics.
RUNS = ("negatives", "teacher", "positives")
# What stands before the name of a run that the collection brings.
BROUGHT = "collection:"
# Between the seeds that order the topics of a training and of one that builds on it: each
# epoch adds one to its training's.
APART = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training stage with the files that the recipe fills in."""

    section: TrainingSection
    # The systems and the run files whose hits of the training topics it reads.
    systems: list[str]
    run_files: list[Path]
    # The same of a collection that is made, which are not there before it is.
    brought: list[Path]
    # Whether it is evaluated on the dev topics while it trains.
    evaluates: bool
    # What the method's train takes.
    arguments: tuple[Any, DenseTrainingArguments]


class Pipeline(Places):
    """A recipe, the files it reads and writes, and its stages."""

    def __init__(self, recipe: Recipe, root: Path) -> None:
        """Check everything that can be checked before the first stage, and declare all.

        Args:
            recipe: what to run.
            root: folder under which work/, runs/ and qrels/ are written.

        Raises:
            DenseHNError: no JDK, settings that a stage does not take, files of the
                collection or of the encoder that are not there, negatives of a system
                that there is not.
        """
        java.java_home()
        faiss_index.require_faiss()
        given_settings = dict(recipe.encoder)
        self.source = given_settings.pop("source", None)
        if not isinstance(self.source, str):
            raise DenseHNError("encoder: source is missing: a folder or a hub name")
        typed = arguments.fill("encoder", EncoderSettings, given_settings)
        self.encoder_settings = {name: getattr(typed, name) for name in given_settings}
        saved = EncoderSettings.saved(locate(self.source))
        settings = EncoderSettings.of(saved | self.encoder_settings)
        super().__init__(recipe, root, settings.architecture)
        self.ledger = Ledger(self.costs)
        # In the order of the file, so that each knows those before it.
        self.trainings: dict[str, Training] = {}
        for section in recipe.stages:
            try:
                self.trainings[section.name] = self._training(section)
            except DenseHNError as error:
                raise DenseHNError(f"stage {section.name}: {error}") from error
        for name in self.exported():
            require_plain(*self._searched(name), self.architecture)
        self.splits = [self.split]
        if self._evaluated():
            self.splits = list(dict.fromkeys([self.split, "dev"]))
        if recipe.rerank.model:
            if self.max_passage:
                raise DenseHNError(
                    "rerank: reads what a run lists, and runs of passages list their "
                    "documents; remove the section"
                )
            cross_encoder.require(recipe.rerank.model)
        for name in recipe.rerank.systems:
            if name not in self._scored():
                known = unknown("system of the table", name, self._scored())
                raise DenseHNError(f"rerank: {known}")
        self._require_judged([*(["train"] if self.trainings else []), *self.splits])
        self._plan()

    def exported(self) -> list[str]:
        """The training stages that Pyserini can search when the recipe is done.

        They are those that no other starts from, those that made an index, and all that
        share their passages.
        """
        sources = {training.section.source for training in self.trainings.values()}
        last = self.trainings.keys() - sources
        spaces = {self.passages(name) for name in last}
        spaces |= set(filter(self.coded, self.trainings))
        return [name for name in self.trainings if self.passages(name) in spaces]

    def _searchers(self, space: str) -> list[str]:
        """The exported training stages that search a passage space."""
        return [name for name in self.exported() if self.passages(name) == space]

    def _searched(self, name: str) -> tuple[Path, Path, Path]:
        """What Pyserini gets to search a training stage: encoder, index and topics."""
        index = self.index(self.passages(name))
        return self.model(name), index, self.topics(self.split)

    def _require_judged(self, splits: Iterable[str]) -> None:
        """Check that the collection has, or will have, judged topics of these splits."""
        section = self.recipe.collection
        there = sources.splits(section.kind, section.value)
        for split in splits:
            if split not in there:
                raise DenseHNError(f"collection: {unknown('split', split, there)}")
            if not there[split]:
                raise DenseHNError(
                    f"collection: the {split} topics are not judged, so that nothing can "
                    "be trained on or scored; `python -m dense_hn.mine --topics "
                    f"{self.topics(split)}` makes their run"
                )

    def _training(self, section: TrainingSection) -> Training:
        """Fill in the files of a training stage, and parse its arguments."""
        kind = commands.STAGES[section.method].Arguments
        taken = {field.name: field for field in fields(kind)}
        settings = dict(section.settings)
        if "negatives" in taken and _required(taken["negatives"]):
            settings.setdefault("negatives", [section.source])
        named = {
            key: list(map(str, _listed(settings.pop(key))))
            for key in RUNS
            if key in taken and key in settings
        }
        runs = {name: self._run(name) for names in named.values() for name in names}
        systems = [name for name in runs if name in self._systems()]
        made = [name for name in runs if name.startswith(BROUGHT) and not self.given]

        files = {
            "encoder": self.model(section.source),
            "corpus": self.corpus,
            "topics": self.topics("train"),
            "qrels": self.judged("train"),
            "eval_topics": self.topics("dev"),
            "eval_qrels": self.judged("dev"),
        }
        if commands.one_sided(section.method):
            space = self.passages(section.source)
            files["index" if self.coded(space) else "vectors"] = self.vectors(space)
            if self.coded(section.name):
                files["index_output"] = self.index(section.name)
        elif self._starts_with_vectors(section):
            files["vectors"] = self.vectors(section.source)
        files = {key: path for key, path in files.items() if key in taken}
        files["output_dir"] = self.model(section.name)
        for key in files:
            if key in settings:
                raise DenseHNError(f"{key} is filled in by the recipe; remove it")
        # YAML reads a plain no as False.
        strategy = settings.get("eval_strategy", "no")
        evaluates = "eval_topics" in files and strategy not in ("no", False)
        if not evaluates:
            files = {k: v for k, v in files.items() if not k.startswith("eval_")}
        if evaluates and self.max_passage:
            files["eval_max_passage"] = "true"
        files |= {key: [runs[name] for name in names] for key, names in named.items()}
        parsed = commands.parse(
            section.method, arguments.argv_of({**settings, **files})
        )
        training, before = parsed[1], self._builds_on(section.source)
        if before and training.data_seed is None:
            # An order of the topics of its own: with one they would all begin with the
            # same topics and, of less than an epoch each, see no others.
            training.data_seed = training.seed + APART * before
        return Training(
            section=section,
            systems=systems,
            run_files=[
                path for name, path in runs.items() if name not in (*systems, *made)
            ],
            brought=[runs[name] for name in made],
            evaluates=evaluates,
            arguments=parsed,
        )

    def _starts_with_vectors(self, section: TrainingSection) -> bool:
        """Whether it trains both sides, and from the vectors that its source makes."""
        own = self.passages(section.source) == section.source
        return section.method == "dynamic" and own and not self.coded(section.source)

    def _builds_on(self, source: str) -> int:
        """How many trainings there are up to one, itself included; none up to base."""
        if source not in self.trainings:
            return 0
        return 1 + self._builds_on(self.trainings[source].section.source)

    def _systems(self) -> list[str]:
        """The systems known so far."""
        return [*table.UNTRAINED, *self.trainings]

    def _scored(self) -> list[str]:
        """The systems in the table."""
        untrained = self.recipe.evaluate.untrained
        return [name for name in self._systems() if untrained or name != "base"]

    def _reranked(self) -> dict[str, tuple[str, int]]:
        """The rows that a cross-encoder makes, and the system and depth of each."""
        section = self.recipe.rerank
        systems = section.systems or self._scored()
        return {
            f"{name}@{depth}": (name, depth)
            for name in (systems if section.model else [])
            for depth in section.depths
        }

    def _evaluated(self) -> list[str]:
        """The stages that are evaluated on the dev topics while they train."""
        return [name for name, one in self.trainings.items() if one.evaluates]

    def _run(self, name: str) -> Path:
        """The run of the training topics by a system known so far, or in a file."""
        if name in self._systems():
            return self.hits(name, "train")
        if name.startswith(BROUGHT):
            path = run_file(self.collection, name.removeprefix(BROUGHT), "train")
            return require_file(path, "the collection's run") if self.given else path
        if not Path(name).is_file():
            raise DenseHNError(unknown("system or run file", name, self._systems()))
        return Path(name)

    def _plan(self) -> None:
        """Declare the stages in the order in which they run: the path of the data."""
        add, recipe = self.ledger.add, self.recipe
        evaluated = (self.split, recipe.evaluate.hits)

        add("collection", self._collection, [self.corpus], self._collection_key())
        for split in self.splits:
            judgements = self._digests(self.topics(split), self.judged(split))
            check = partial(self._judged, split)
            add(f"topics.{split}", check, [], judgements, after=["collection"])
        add("bm25.index", self._index, [self.index("bm25")], after=["collection"])
        self._add_search("bm25", *evaluated)
        add("base", self._base, [self.model("base")], self._base_key())
        if recipe.evaluate.untrained:
            self._add_search("base", *evaluated)
        for name, training in self.trainings.items():
            for system in training.systems:
                if f"{system}.train" not in self.ledger.stages:
                    self._add_search(system, "train", self._depth(system))
            self._add_training(name)
            self._add_search(name, *evaluated)
        if self._evaluated():
            add("curves", self._curves, [self.curves], after=self._evaluated())
        for space in dict.fromkeys(map(self.passages, self.exported())):
            if self.coded(space):
                continue
            add(
                f"{space}.export",
                partial(self._export, space),
                [self.index(space)],
                after=["collection", f"{space}.encode", *self._searchers(space)],
            )
        scored = [f"{name}.{self.split}" for name in ("topics", *self._scored())]
        if reranked := self._reranked():
            runs = [self.hits(name, self.split) for name in reranked]
            model = _folder_digests(recipe.rerank.model)
            after = ["collection", *scored]
            add(
                "rerank",
                self._rerank,
                runs,
                [asdict(recipe.rerank), model],
                after=after,
            )
            scored.append("rerank")
        add(
            "evaluate",
            self._evaluate,
            [self.table, self.qrels],
            recipe.evaluate.measures,
            after=scored,
        )
        if self.trainings:
            cards = [self.model(name) / CARD for name in self.exported()]
            add("cards", self._cards, cards, after=["evaluate"])

    def _add_search(self, system: str, split: str, hits: int) -> None:
        """Declare the run of a system."""
        settings = [hits, self._digests(self.topics(split))]
        if system == "bm25":
            search, after = self._search_bm25, ["bm25.index"]
            settings.append(asdict(self.recipe.bm25))
        else:
            search = partial(self._search, system)
            after = [system, self._add_encode(self.passages(system))]
        self.ledger.add(
            f"{system}.{split}",
            partial(search, split, hits),
            [self.hits(system, split)],
            settings,
            after=after,
        )

    def _add_encode(self, space: str) -> str:
        """Declare the vectors of a passage space, once; the name of the stage that makes them."""
        if self.coded(space):
            return space
        name = f"{space}.encode"
        if name not in self.ledger.stages:
            self.ledger.add(
                name,
                partial(self._encode, space),
                [self.vectors(space)],
                after=["collection", space],
            )
        return name

    def _add_training(self, name: str) -> None:
        """Declare a training stage; it reads its source, and runs of the systems."""
        training = self.trainings[name]
        section = training.section
        after = ["collection", section.source]
        if commands.one_sided(section.method):
            after.append(self._add_encode(self.passages(section.source)))
        elif self._starts_with_vectors(section):
            after.append(self._add_encode(section.source))
        if training.evaluates:
            after.append("topics.dev")
        settings = dict(section.settings)
        if training.arguments[1].data_seed is not None:
            settings["data_seed"] = training.arguments[1].data_seed
        made = [self.model(name), log_of(self.model(name))]
        if self.coded(name):
            made.append(self.index(name))
        self.ledger.add(
            name,
            lambda: commands.STAGES[section.method].train(*training.arguments),
            made,
            [section.method, settings, _digests(training.run_files)],
            after=[*after, *(f"{system}.train" for system in training.systems)],
        )

    def _depth(self, system: str) -> int:
        """Hits of a training topic that the stages which read a system look at."""
        return max(
            training.arguments[0].negatives_depth
            for training in self.trainings.values()
            if system in training.systems
        )

    def run(self) -> None:
        """Run the stages that are not done."""
        self.ledger.run()
        text = as_yaml(self.recipe)
        if not self.ran.exists() or self.ran.read_text(encoding="utf-8") != text:
            with whole_file(self.ran) as partial_file:
                partial_file.write_text(text, encoding="utf-8")

    def report(self) -> str:
        """Time of the stages, how Pyserini searches the models, and the table."""
        lines = [self.ledger.summary()]
        for name in self.exported():
            command = as_typed("search.faiss", self._command(name))
            lines += ["", f"{name} in Pyserini:", command]
        if self._evaluated():
            lines += ["", f"{self.recipe.name}, dev topics while training"]
            lines += [self.curves.read_text(encoding="utf-8").rstrip()]
        lines += ["", f"{self.recipe.name}, {self.split} topics"]
        lines += [self.table.read_text(encoding="utf-8").rstrip()]
        return "\n".join(lines)

    def _command(self, name: str) -> list[str]:
        """What `pyserini.search.faiss` gets to search a training stage."""
        encoder, index, topics = self._searched(name)
        return search_command(
            EncoderSettings.of(EncoderSettings.saved(str(encoder))),
            encoder,
            index,
            trec.for_pyserini(topics, self.work / f"topics.{self.split}.json"),
            output=self.runs / f"pyserini-{name}.{self.split}.txt",
            hits=self.recipe.evaluate.hits,
            max_passage=self.max_passage,
        )

    def _digests(self, *files: Path) -> list[str]:
        """Digests of a given collection's files; a made one is known by its stage."""
        return _digests(files) if self.given else []

    def _collection_key(self) -> list:
        if self.given:
            trained_on = [self.topics("train"), self.judged("train")]
            return _digests([self.corpus, *(trained_on if self.trainings else [])])
        kind, value = self.recipe.collection.kind, self.recipe.collection.value
        return [kind, value, sources.digests(kind, value)]

    def _collection(self) -> None:
        if not self.given:
            section = self.recipe.collection
            sources.build(section.kind, section.value, self.collection)
        for training in self.trainings.values():
            for path in training.brought:
                what = (
                    f"stage {training.section.name}: the collection brings no such run"
                )
                require_file(path, what)
        corpus = read_corpus(self.corpus)
        if not self.trainings:
            return
        levels = {one.arguments[0].relevance_level for one in self.trainings.values()}
        judged = {
            level: trec.read_judged(self.topics("train"), self.judged("train"), level)
            for level in {1, *levels}
        }
        trec.require_known(judged[1][1], corpus, self.judged("train"), self.corpus)
        for training in self.trainings.values():
            args = training.arguments[0]
            if training.section.method == "adore":
                topics, qrels = judged[args.relevance_level]
                if args.positives:
                    # One passage of each document is left.
                    qrels = maxp.of_documents(qrels)
                adore.require_negatives(args, topics, qrels, len(corpus))

    def _judged(self, split: str) -> None:
        """Check topics to evaluate on: what is judged is there."""
        topics, qrels = self.topics(split), self.judged(split)
        judged = trec.read_qrels(qrels)
        trec.require_covered(judged, trec.read_topics(topics), qrels, topics, "text")
        trec.require_known(judged, read_corpus(self.corpus), qrels, self.corpus)

    def _index(self) -> None:
        bm25.index(read_corpus(self.corpus), self.index("bm25"))

    def _search_bm25(self, split: str, hits: int) -> None:
        index, topics = self.index("bm25"), self.topics(split)
        output, section = self.hits("bm25", split), self.recipe.bm25
        settings = section.k1, section.b, self._of_documents(split)
        bm25.mine(index, topics, hits, output, "bm25", *settings)

    def _base_key(self) -> list:
        return [self.source, self.encoder_settings, _folder_digests(self.source)]

    def _base(self) -> None:
        DenseEncoder.load(self.source, **self.encoder_settings).save(self.model("base"))

    def _encode(self, space: str) -> None:
        encoder = DenseEncoder.load(str(self.model(space)))
        corpus = read_corpus(self.corpus)
        encode_corpus(encoder, corpus, self.vectors(space))

    def _search(self, name: str, split: str, hits: int) -> None:
        encoder = DenseEncoder.load(str(self.model(name)))
        vectors = read_vectors(self.vectors(self.passages(name)))
        # Filters compare negatives with the positives' scores.
        qrels = self.judged(split) if split == "train" else None
        topics, output = self.topics(split), self.hits(name, split)
        folded = self._of_documents(split)
        mine(encoder, vectors, topics, hits, output, name, qrels, max_passage=folded)

    def _of_documents(self, split: str) -> bool:
        """Whether runs of these topics are of whole documents, where passages are searched."""
        return self.max_passage and split != "train"

    def _export(self, space: str) -> None:
        vectors = Vectors.load(self.vectors(space))
        paths = [str(self.model(name)) for name in self._searchers(space)]
        encoders = {path: DenseEncoder.load(path) for path in paths}
        # Not those that are evaluated, with which the index would be made again.
        topics = trec.read_topics(self.topics("train")).values()
        export_index(vectors, self.index(space), encoders, topics=topics)

    def _curves(self) -> None:
        logs = {name: log_of(self.model(name)) for name in self._evaluated()}
        measured = {name: curves.read(log) for name, log in logs.items()}
        with whole_file(self.curves) as partial_file:
            partial_file.write_text(f"{curves.table(measured)}\n", encoding="utf-8")

    def _rerank(self) -> None:
        systems = [system for system, _ in self._reranked().values()]
        runs = {name: trec.read_run(self.hits(name, self.split)) for name in systems}
        section, topics = self.recipe.rerank, self.topics(self.split)
        cross = CrossEncoder.load(section.model)
        for name, depth, run in rerank_together(
            cross, runs, topics, self.corpus, section.depths, self.rerank_scores
        ):
            name = f"{name}@{depth}"
            trec.write_run(self.hits(name, self.split), run, name)

    def _evaluate(self) -> None:
        qrels = trec.read_qrels(self.judged(self.split))
        if self.max_passage:
            qrels = maxp.of_documents(qrels)
        trec.write_qrels(self.qrels, qrels)
        measures.tell_without_relevant(qrels, self.recipe.evaluate.measures)
        runs = []
        for name in [*self._scored(), *self._reranked()]:
            run = trec.read_run(self.hits(name, self.split))
            title = table.UNTRAINED.get(name, name)
            runs.append(
                measures.score(title, qrels, run, self.recipe.evaluate.measures)
            )
        compared = significance.compare(runs)
        for path, text in (
            (self.table.with_suffix(".json"), table.as_json(compared)),
            (self.table, table.text(compared)),
        ):
            with whole_file(path) as partial_file:
                partial_file.write_text(f"{text}\n", encoding="utf-8")

    def _cards(self) -> None:
        for name in self.exported():
            line = as_typed(
                "search.faiss", [*map(self._from_root, self._command(name))]
            )
            card.write(self, name, line)

    def _from_root(self, word: str) -> str:
        """A path as it is in the output folder; of others the name alone, to be published."""
        path = Path(word)
        if path.is_relative_to(self.root) and ".." not in path.parts:
            return str(path.relative_to(self.root))
        return path.name if path.exists() else word


def _required(field: Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _listed(value: object) -> list:
    return value if isinstance(value, list) else [value]


def _folder_digests(source: str) -> list[str]:
    """Of the files of a folder, but for its model card, which is for people and is written
    again with every table; none of what comes from the hub."""
    files = sorted(path for path in Path(locate(source)).rglob("*") if path.is_file())
    return _digests(path for path in files if path.name != CARD)


def _digests(files: Iterable[Path]) -> list[str]:
    return [digest(path) for path in files]
