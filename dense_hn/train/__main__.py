"""python -m dense_hn.train: a whole recipe, one training stage, or a cross-encoder.

python -m dense_hn.train quickstart
python -m dense_hn.train RECIPE.yaml --set star.learning_rate=1e-5
python -m dense_hn.train warmup|star|adore|dynamic|cross --help   (with the flags of transformers.TrainingArguments)
"""

import os
import sys
from pathlib import Path

from dense_hn import DenseHNError, cli
from dense_hn.names import unknown
from dense_hn.train import commands, recipe
from dense_hn.train.pipeline import Pipeline


def main() -> None:
    """Dispatch on the first word."""
    if sys.argv[1:2] and sys.argv[1] in commands.TRAININGS:
        commands.train(sys.argv[1], sys.argv[2:])
        return
    parser = cli.parser("dense_hn.train", __doc__)
    parser.add_argument("recipe", help="YAML file, or the name of one that comes along")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="replace a setting of the recipe",
    )
    parser.add_argument(
        "--output",
        default=".",
        type=Path,
        help="where work/, runs/ and qrels/ are written (default: here)",
    )
    args, left = parser.parse_known_args()
    if left:
        stage = unknown("stage", args.recipe, commands.TRAININGS)
        raise DenseHNError(f"{left[0]} is no argument of a recipe; or {stage}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DenseHNError(
            f"{args.recipe}: a recipe runs in one process; start its stages with torchrun "
            "one by one (integrations/pyserini/growth.md), or it without"
        )
    pipeline = Pipeline(recipe.read(args.recipe, args.set), args.output)
    pipeline.run()
    print(pipeline.report())


if __name__ == "__main__":
    cli.run(main)
