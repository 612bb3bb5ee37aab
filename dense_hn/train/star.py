"""STAR: static hard negatives, stabilised by the batch's random ones.

    python -m dense_hn.train star --encoder DIR --corpus corpus.jsonl --topics train.tsv \\
        --qrels train.qrels --negatives run.txt --output_dir models/star

The runs are the warm-up model's own top hits (dense_hn.mine), BM25's, or anybody's.

Source: arXiv 2104.08051, section 5.1.
"""

from dataclasses import dataclass, field

from dense_hn.train.joint import check, train
from dense_hn.train.joint_arguments import JointArguments

__all__ = ["Arguments", "check", "train"]


@dataclass(kw_only=True)
class Arguments(JointArguments):
    """As JointArguments, but that there must be a run of negatives."""

    negatives: list[str] = field(
        metadata={"help": "TREC runs for the training topics: static hard negatives."}
    )
