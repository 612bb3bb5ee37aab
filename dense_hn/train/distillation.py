"""Learning from a teacher's scores, alone or beside the loss of a stage."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from dense_hn import DenseHNError, losses, trec
from dense_hn.train.evaluation import EvaluationArguments
from dense_hn.train.supervision import Supervision, SupervisionArguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """(1 − weight) · the stage's loss + weight · a distilling one."""

    # One of losses.DISTILLATIONS.
    name: str
    weight: float
    # The teacher's scores are multiplied with it.
    scale: float

    def mixed(
        self,
        loss: Tensor,
        positive: Tensor,
        scores: Tensor,
        negatives: Tensor,
        teacher_positive: Tensor,
        teacher: Tensor,
    ) -> Tensor:
        """The stage's loss with the teacher's share.

        Args:
            loss: the stage's own, a scalar.
            positive: [B] the student's score of a positive of each query.
            scores: [B, M] the student's scores.
            negatives: [B, M] True where the document is a negative of the query.
            teacher_positive: [B] the teacher's score of that positive; NaN where it has
                none, and nothing is learnt for the query.
            teacher: [B, M] the teacher's scores; NaN where it has none.
        """
        known = ~teacher_positive.isnan()
        pairs = negatives & ~teacher.isnan() & known[:, None]
        distilled = losses.DISTILLATIONS[self.name](
            positive,
            scores,
            pairs,
            self.scale * teacher_positive.nan_to_num(),
            self.scale * teacher.nan_to_num(),
        )
        # Alone, a loss that has no pair does not count.
        if self.weight == 1:
            return distilled
        return (1 - self.weight) * loss + self.weight * distilled


@dataclass(kw_only=True)
class TaughtArguments(SupervisionArguments, EvaluationArguments):
    """What an encoder learns from, a teacher's scores among it, and what evaluates it."""

    scale: float | None = field(
        default=None,
        metadata={
            "help": "Scores are multiplied with this in the losses, one over the "
            "temperature, if not the encoder's own."
        },
    )
    distil: str | None = field(
        default=None,
        metadata={
            "help": "Learn from the teacher's scores t: margin-mse: mean of ((s(p) − s(n)) "
            "− (t(p) − t(n)))² (arXiv 2010.02666); kl: Σ P_t·(log P_t − log P_s), softmaxes "
            "over what the teacher scored (arXiv 1503.02531).",
            "choices": list(losses.DISTILLATIONS),
        },
    )
    distil_weight: float = field(
        default=1.0,
        metadata={
            "help": "w of w · distil + (1 − w) · the stage's own loss; 1: distil alone."
        },
    )
    teacher_scale: float = field(
        default=1.0,
        metadata={
            "help": "distil multiplies the teacher's scores with this: for the run of an "
            "encoder take its scale, for a cross-encoder's logits 1."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        EvaluationArguments.__post_init__(self)
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise DenseHNError(f"scale is {self.scale}; it must be above 0")
        if self.distil and not self.teacher:
            raise DenseHNError(
                f"distil {self.distil} needs a teacher's run; name it as teacher"
            )
        if not 0 < self.distil_weight <= 1:
            raise DenseHNError(
                f"distil_weight is {self.distil_weight}; it is above 0 and at most 1"
            )
        if not 0 < self.teacher_scale < math.inf:
            raise DenseHNError(
                f"teacher_scale is {self.teacher_scale}; it is a number above 0"
            )
        for name in ("distil_weight", "teacher_scale"):
            if getattr(self, name) != 1 and not self.distil:
                raise DenseHNError(f"{name} is of distil; give that, too")

    def encoder_settings(self) -> dict[str, float]:
        """What replaces the encoder's own settings."""
        return {} if self.scale is None else {"scale": self.scale}

    def uses_teacher(self) -> bool:
        """Whether anything here looks at the teacher's scores."""
        return bool(self.distil) or super().uses_teacher()

    def distillation(self) -> Distillation | None:
        """What learns from the teacher's scores, if anything does."""
        if not self.distil:
            return None
        return Distillation(
            name=self.distil, weight=self.distil_weight, scale=self.teacher_scale
        )

    def distils_alone(self) -> bool:
        """Whether nothing but the teacher's scores is learnt from."""
        return bool(self.distil) and self.distil_weight == 1


def taught(args: TaughtArguments, supervision: Supervision) -> dict[str, list[str]]:
    """The relevant documents that a stage learns from, by query.

    Where nothing but the teacher's scores is learnt, those that it scored; queries without
    are left out, and told of.

    Raises:
        DenseHNError: the teacher scored no relevant document of any topic.
    """
    positives = {
        qid: trec.positives(supervision.qrels, qid) for qid in supervision.topics
    }
    if not args.distils_alone():
        return positives
    teacher = supervision.teacher
    scored = {
        qid: [docid for docid in docids if docid in teacher.get(qid, {})]
        for qid, docids in positives.items()
    }
    covered = {qid for qid, docids in scored.items() if docids}
    trec.tell_uncovered(
        positives, covered, args.topics, args.teacher, "relevant document with a score"
    )
    return {qid: scored[qid] for qid in positives if qid in covered}
