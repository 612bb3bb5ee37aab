"""What `warmup` and `star` are told."""

from dataclasses import dataclass, field

from dense_hn import DenseHNError, losses
from dense_hn.train.distillation import TaughtArguments


@dataclass(kw_only=True)
class JointArguments(TaughtArguments):
    """What both sides train on, and how their loss is put together."""

    encoder: str = field(metadata={"help": "Start from this folder or hub name."})
    corpus: str = field(metadata={"help": "JSONL (id and contents), TSV, or a folder."})
    in_batch: bool = field(
        default=True,
        metadata={"help": "The batch's other documents are random negatives as well."},
    )
    topics_per_positive: int = field(
        default=1,
        metadata={
            "help": "At most so many of a positive's queries stand in a batch together "
            "and share its vector, and negatives drawn for one of them: more to learn "
            "from in the same time, where documents have several queries. Above 1 an "
            "epoch has every query with each of its positives once, and "
            "per_device_train_batch_size counts positives."
        },
    )
    star_loss: str = field(
        default="weighted",
        metadata={
            "help": "With l = softplus(s(n) − s(p)), scores s times the encoder's scale: "
            "weighted: mean l over hard negatives + alpha · mean l over random ones "
            "(STAR, Eq. 13); pooled: mean l over all of them (STAR's released code); "
            "infonce: −log(exp s(p) / (exp s(p) + Σ exp s(n))).",
            "choices": list(losses.STAR_LOSSES),
        },
    )
    alpha: float = field(
        default=1.0, metadata={"help": "Weight of the random pairs in weighted."}
    )
    query_length: int | None = field(
        default=None,
        metadata={"help": "Tokens of a query in training, if not the encoder's own."},
    )
    passage_length: int | None = field(
        default=None,
        metadata={"help": "Tokens of a passage in training, if not the encoder's own."},
    )
    refresh_steps: int = field(
        default=0,
        metadata={
            "help": "Every so many steps, encode the corpus with the model as it is, "
            "and put its hits in the place of the last run of negatives (ANCE, "
            "arXiv 2007.00808, section 4, but training waits). 0: never."
        },
    )
    refresh_epochs: int = field(
        default=0, metadata={"help": "The same, every so many epochs."}
    )
    dropout: float | None = field(
        default=None, metadata={"help": "Dropout, if not the checkpoint's own."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.draws() or self.in_batch):
            raise DenseHNError(
                "there is no source of negatives: give negatives (runs), "
                "random_per_query, or in_batch"
            )
        refreshes = self.refresh_steps, self.refresh_epochs
        if min(refreshes) < 0 or (any(refreshes) and not self.negatives):
            raise DenseHNError(
                "refresh_steps and refresh_epochs start at 0 (never), and refresh the "
                "last run of negatives: name one to start with"
            )
        if all(refreshes):
            raise DenseHNError("give either refresh_steps or refresh_epochs")
        if self.topics_per_positive < 1:
            raise DenseHNError(
                f"topics_per_positive is {self.topics_per_positive}; it starts at 1"
            )
        if self.alpha != 1 and self.star_loss != "weighted":
            raise DenseHNError(f"alpha is of weighted; star_loss is {self.star_loss}")
        if not self.alpha >= 0:
            raise DenseHNError(f"alpha is {self.alpha}; it must be 0 or more")
        if self.distils_alone() and not (self.negatives or self.finds_negatives()):
            raise DenseHNError(
                f"distil {self.distil} alone needs negatives that the teacher scored; name "
                "their runs, or give a distil_weight below 1"
            )

    def draws(self) -> bool:
        """Whether a query brings negatives of its own, besides the batch's."""
        drawn = self.negatives or self.random_per_query
        return bool(drawn) or self.finds_negatives()

    def finds_negatives(self) -> bool:
        """Whether the training itself looks for some at every step."""
        return False
