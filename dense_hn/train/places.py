"""Where a recipe keeps what it makes, and finds what it was given.

Under an output folder there are

    work/NAME/    NAME.yaml (the recipe as it ran), collection, models/{base,STAGE…} (or
                  ance/{base,STAGE…}, by which Pyserini knows that architecture),
                  vectors/{base,STAGE…}, indexes/{bm25,STAGE…}, rerank (what a
                  cross-encoder scored), stages.json
    runs/NAME/    a TREC run for each system, the table, and the training curves
    qrels/NAME/   the qrels that the table was scored with

A system is bm25, base or a training stage; SYSTEM@DEPTH is one whose first hits were
re-ranked. Its passage space is the system whose
passage vectors it searches: itself, or, where a stage trains the query side only, that
of the stage it starts from; a stage that searches codes (``form``) or trains them makes an
index, and is a space of its own.
"""

from pathlib import Path

from dense_hn import DenseHNError
from dense_hn.collections import sources
from dense_hn.collections.collection import corpus_file, qrels_file, topics_file
from dense_hn.names import unknown
from dense_hn.train import commands, recipe
from dense_hn.train.recipe import Recipe

# Folder of the encoders, by their architecture.
MODELS = {"ance": "ance", "auto": "models"}
# Settings of a stage that makes an index.
MAKE_INDEX = ("form", "train_centroids")


class Places:
    """The files of a recipe."""

    def __init__(self, recipe: Recipe, root: Path, architecture: str) -> None:
        """Name them; nothing is read or written.

        Args:
            recipe: whose they are.
            root: folder under which work/, runs/ and qrels/ are.
            architecture: of its encoders.
        """
        self.recipe = recipe
        self.root = root
        self.architecture = architecture
        self.split = recipe.evaluate.topics
        self.work = root / "work" / recipe.name
        self.runs = root / "runs" / recipe.name
        self.qrels = root / "qrels" / recipe.name / f"{self.split}.txt"
        self.table = self.runs / f"table.{self.split}.txt"
        self.curves = self.runs / "curves.dev.txt"
        self.costs = self.work / "stages.json"
        self.rerank_scores = self.work / "rerank" / f"{self.split}.txt"
        # The recipe as it ran.
        self.ran = self.work / f"{recipe.name}.yaml"
        # A folder is used as it is; other collections are made.
        self.given = recipe.collection.kind == sources.FOLDER
        # Whether its corpus is of passages, and evaluated runs and the table of their documents.
        self.max_passage = recipe.collection.kind == sources.PASSAGES
        self.collection = self.work / "collection"
        if self.given:
            self.collection = Path(recipe.collection.value)
        self.corpus = corpus_file(self.collection)

    @classmethod
    def found(cls, root: Path, name: str = "") -> "Places":
        """Those of a recipe that ran.

        Args:
            root: what was given as its output folder.
            name: of the recipe; need not be given where only one ran.

        Raises:
            DenseHNError: no recipe ran there, or several did; not this one.
        """
        ran = {
            path.parent.name: path
            for path in sorted(root.glob("work/*/*.yaml"))
            if path.stem == path.parent.name
        }
        if not ran:
            raise DenseHNError(
                f"{root}: no recipe ran with this output folder; name what "
                "`python -m dense_hn.train RECIPE --output` was given"
            )
        if not name and len(ran) > 1:
            raise DenseHNError(
                f"{root}: several recipes ran: {', '.join(ran)}; name one"
            )
        if name and name not in ran:
            raise DenseHNError(f"{root}: {unknown('recipe', name, ran)}")
        path = ran[name] if name else next(iter(ran.values()))
        read = recipe.read(str(path))
        for architecture in MODELS:
            places = cls(read, root, architecture)
            told = read.encoder.get("architecture", architecture) == architecture
            if told and all(places.model(stage.name).is_dir() for stage in read.stages):
                return places
        raise DenseHNError(
            f"{path.parent}: an encoder of the recipe is not in it; run {path} again"
        )

    def passages(self, encoder: str) -> str:
        """The passage space of an encoder: base, or a training stage's."""
        for stage in self.recipe.stages:
            one_sided = commands.one_sided(stage.method)
            if stage.name == encoder and one_sided and not self.coded(encoder):
                return self.passages(stage.source)
        return encoder

    def has_stage(self, name: str) -> bool:
        """Whether a stage of the ledger is this recipe's and split's, and none that is left
        of what the recipe once was."""
        system, _, rest = name.partition(".")
        systems = {*recipe.TAKEN, *recipe.SECTIONS}
        systems |= {stage.name for stage in self.recipe.stages}
        of_split = rest in ("", self.split, *recipe.NOT_EVALUATED)
        # What trainings are evaluated on, while they go on.
        return system in systems and (of_split or name == "topics.dev")

    def coded(self, space: str) -> bool:
        """Whether a passage space is an index that a stage has made while it trained."""
        return any(
            stage.name == space and any(map(stage.settings.get, MAKE_INDEX))
            for stage in self.recipe.stages
        )

    def model(self, name: str) -> Path:
        """Folder of an encoder: base, or a training stage's."""
        return self.work / MODELS[self.architecture] / name

    def vectors(self, space: str) -> Path:
        """What holds a passage space: a vectors folder, or an index of codes."""
        return self.index(space) if self.coded(space) else self.work / "vectors" / space

    def index(self, name: str) -> Path:
        """An index that Pyserini opens: bm25 (Lucene), or a passage space's (faiss)."""
        return self.work / "indexes" / name

    def topics(self, split: str) -> Path:
        """Topics of a split."""
        return topics_file(self.collection, split)

    def judged(self, split: str) -> Path:
        """Qrels of a split."""
        return qrels_file(self.collection, split)

    def hits(self, system: str, split: str) -> Path:
        """The run of a system."""
        return self.runs / f"{system}.{split}.txt"
