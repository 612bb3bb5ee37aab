"""What `warmup` and `star` are told."""

from dataclasses import dataclass, field

from dense_hn import DenseHNError, losses
from dense_hn.train.supervision import SupervisionArguments


@dataclass(kw_only=True)
class JointArguments(SupervisionArguments):
    """What both sides train on, and how their loss is put together."""

    encoder: str = field(metadata={"help": "Start from this folder or hub name."})
    corpus: str = field(metadata={"help": "JSONL file, one id and contents a line."})
    negatives: list[str] = field(
        default_factory=list,
        metadata={"help": "TREC runs for the training topics: static hard negatives."},
    )
    negatives_per_query: list[int] = field(
        default_factory=lambda: [1],
        metadata={
            "help": "Hard negatives drawn per query and epoch: one number for all runs "
            "together, or one for each run."
        },
    )
    negatives_depth: int = field(
        default=200, metadata={"help": "Hits of each run that are drawn from."}
    )
    negatives_skip: int = field(
        default=0,
        metadata={"help": "Best hits of each run to leave out, as too suspicious."},
    )
    random_per_query: int = field(
        default=0,
        metadata={"help": "Documents of the whole corpus drawn per query and epoch."},
    )
    in_batch: bool = field(
        default=True,
        metadata={"help": "The batch's other documents are random negatives as well."},
    )
    star_loss: str = field(
        default="weighted",
        metadata={
            "help": "weighted: mean over hard pairs + alpha · mean over random pairs "
            "(STAR, Eq. 13); pooled: one mean over all pairs (STAR's released code); "
            "infonce: softmax over the positive and all negatives of the batch, "
            "temperature 1/scale; margin-mse: squared difference of the score margins "
            "to the teacher's (arXiv 2010.02666); kl: divergence from the teacher's "
            "softmax over the documents that it scored (arXiv 1503.02531).",
            "choices": [*losses.STAR_LOSSES, *losses.DISTILLATIONS],
        },
    )
    alpha: float = field(
        default=1.0, metadata={"help": "Weight of the random pairs in weighted."}
    )
    teacher_scale: float = field(
        default=1.0,
        metadata={"help": "Distillation multiplies the teacher's scores with this."},
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
    eval_share: float = field(
        default=1.0,
        metadata={
            "help": "Share of the corpus that is encoded for an evaluation; what is "
            "judged for the dev topics always is."
        },
    )
    dropout: float | None = field(
        default=None, metadata={"help": "Dropout, if not the checkpoint's own."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.negatives_skip < self.negatives_depth:
            raise DenseHNError(
                f"negatives_skip is {self.negatives_skip} and negatives_depth "
                f"{self.negatives_depth}: no rank lies between them"
            )
        numbers = self.negatives_per_query
        if len(numbers) not in (1, len(self.negatives)) or min(numbers) < 1:
            raise DenseHNError(
                f"negatives_per_query is {numbers}: give one number for the "
                f"{len(self.negatives)} runs together, or one for each, from 1"
            )
        if self.random_per_query < 0:
            raise DenseHNError(
                f"random_per_query is {self.random_per_query}; it starts at 0"
            )
        if not (self.negatives or self.random_per_query or self.in_batch):
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
        if not 0 <= self.eval_share <= 1:
            raise DenseHNError(f"eval_share is {self.eval_share}; it is from 0 to 1")
        if not self.alpha >= 0:
            raise DenseHNError(f"alpha is {self.alpha}; it must be 0 or more")
        if self.distils() and not (self.teacher and self.negatives):
            raise DenseHNError(
                f"star_loss {self.star_loss} needs a teacher's run, and negatives that "
                "the teacher scored"
            )

    def distils(self) -> bool:
        """Whether the loss learns from the teacher's scores."""
        return self.star_loss in losses.DISTILLATIONS

    def uses_teacher(self) -> bool:
        """Whether the loss, or a filter, looks at the teacher's scores."""
        return self.distils() or super().uses_teacher()
