"""What `adore` is told."""

from dataclasses import dataclass, field
from pathlib import Path

from dense_hn import DenseHNError, losses
from dense_hn.export.faiss_index import CODED
from dense_hn.train.distillation import TaughtArguments

# As JPQ's authors have it.
CENTROID_LEARNING_RATE = 1e-4


@dataclass(kw_only=True)
class Arguments(TaughtArguments):
    """What ADORE trains on, and how deep it looks."""

    encoder: str = field(
        metadata={"help": "Start from this folder: the encoder that made the vectors."}
    )
    vectors: str | None = field(
        default=None, metadata={"help": "Folder from dense_hn.encode."}
    )
    index: str | None = field(
        default=None,
        metadata={
            "help": "Instead of vectors: a faiss folder as Pyserini searches it (index, "
            "docid), which is only read."
        },
    )
    corpus: str | None = field(
        default=None,
        metadata={
            "help": "Its texts, to check that the encoder made the index, and to show "
            "dropped false negatives with."
        },
    )
    adore_hits: int = field(
        default=200, metadata={"help": "Hits retrieved for each query at every step."}
    )
    metric: str = field(
        default="RR",
        metadata={
            "help": "LambdaLoss (paper, section 5.2) is the mean of w·softplus(s(n) − "
            "s(p)), w what swapping p and n changes: RR: |1/r(p) − 1/r(n)| for ranks r "
            "up to metric_cut; nDCG: |g(p) − g(n)|·|1/log2(1 + r(p)) − 1/log2(1 + "
            "r(n))| / ideal DCG, with the qrels' grades g; none: w = 1.",
            "choices": list(losses.LAMBDA_METRICS),
        },
    )
    metric_cut: int = field(
        default=200, metadata={"help": "Ranks beyond it are worth nothing."}
    )
    query_length: int | None = field(
        default=None,
        metadata={"help": "Tokens of a query in training, if not the encoder's own."},
    )
    form: str | None = field(
        default=None,
        metadata={
            "help": "Product-quantise the vectors as `dense_hn.export --form` does, and "
            "search and train against the codes.",
            "choices": list(CODED),
        },
    )
    pq_m: int | None = field(
        default=None,
        metadata={"help": "Bytes of a passage; default: one for 4 dimensions."},
    )
    train_centroids: bool = field(
        default=False,
        metadata={
            "help": "Train what the codes stand for with the query encoder; the codes of "
            "the passages stay."
        },
    )
    centroid_learning_rate: float | None = field(
        default=None, metadata={"help": f"Default {CENTROID_LEARNING_RATE}."}
    )
    index_output: str | None = field(
        default=None,
        metadata={"help": "With form or train_centroids: the index folder to write."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.vectors) == bool(self.index):
            raise DenseHNError("give either --vectors or --index, one of the two")
        if self.adore_hits < 1 or self.metric_cut < 1:
            raise DenseHNError("adore_hits and metric_cut start at 1")
        if self.metric_cut != 200 and self.metric == "none":
            raise DenseHNError("metric_cut is of RR and nDCG; metric is none")
        if self.negatives_skip >= self.adore_hits:
            raise DenseHNError(
                f"negatives_skip is {self.negatives_skip} and adore_hits "
                f"{self.adore_hits}: no hit would be left"
            )
        if self.form and not self.vectors:
            raise DenseHNError(
                "form is of --vectors; an index already has one, which is searched"
            )
        if self.pq_m is not None and not self.form:
            raise DenseHNError("pq_m is of form; give that, too: pq or opq-pq")
        if self.centroid_learning_rate is not None and not self.train_centroids:
            raise DenseHNError("centroid_learning_rate is of train_centroids")
        if self.train_centroids and not self.centroid_rate() > 0:
            raise DenseHNError(
                f"centroid_learning_rate is {self.centroid_learning_rate}; it must be above 0"
            )
        if self.train_centroids and not (self.form or self.index):
            raise DenseHNError(
                "train_centroids is of product-quantised passages; give form as well "
                "(pq or opq-pq), or an --index of such a form"
            )
        if bool(self.index_output) != self.makes_index():
            raise DenseHNError(
                "index_output is where the index goes that form and train_centroids "
                "make: give it with them, and with nothing else"
            )
        for name in ("vectors", "index", "encoder"):
            there = getattr(self, name)
            if self.index_output and there and same(self.index_output, there):
                raise DenseHNError(
                    f"index_output is {self.index_output}, the {name}, which is only read; "
                    "name another folder"
                )

    def centroid_rate(self) -> float | None:
        """The centroids' learning rate; None where they are not trained."""
        if not self.train_centroids:
            return None
        if self.centroid_learning_rate is None:
            return CENTROID_LEARNING_RATE
        return self.centroid_learning_rate

    def makes_index(self) -> bool:
        """Whether the encoder will search another index than there is."""
        return bool(self.form) or self.train_centroids


def same(one: str, other: str) -> bool:
    """Whether two paths lead to one folder."""
    return Path(one).resolve() == Path(other).resolve()
