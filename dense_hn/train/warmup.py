"""Warm-up: a first training with in-batch, random or BM25 negatives.

    python -m dense_hn.train warmup --encoder DIR --corpus corpus.jsonl \\
        --topics train.tsv --qrels train.qrels --output_dir models/warmup
        [--negatives bm25.txt | --random_per_query 1 --in_batch false]

Without more, every other document of the batch is a negative. The model that it makes
mines the static hard negatives that STAR starts with.

Source: arXiv 2104.08051, section 3 (random and BM25 negatives), and ANCE's warm-up
(arXiv 2007.00808, section 5: BM25 negatives and those of the batch).
"""

from dense_hn.train.joint import check, train
from dense_hn.train.joint_arguments import JointArguments as Arguments

__all__ = ["Arguments", "check", "train"]
