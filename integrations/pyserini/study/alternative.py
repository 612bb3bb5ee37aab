"""What a user would take instead: sentence-transformers, with hard negatives that it mines.

    python integrations/pyserini/study/alternative.py --collection DIR --encoder DIR \\
        --output DIR --max_steps 300 --learning_rate 1e-4

trains on a collection folder's training topics (every relevant document is a pair) and
writes a folder of sentence-transformers, which dense_hn loads, too, and ``costs.json``
inside. All of it is the library's own: `mine_hard_negatives` with the model that it
starts from, `MultipleNegativesRankingLoss`, its trainer, its batches without duplicates.
"""

import argparse
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer import losses, modules
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from sentence_transformers.util import mine_hard_negatives
from transformers.hf_argparser import string_to_bool

from dense_hn import cli, costs, maxp, trec
from dense_hn.collections import collection
from dense_hn.encode import COSTS
from dense_hn.encoder import set_dropout
from dense_hn.encoder_settings import EncoderSettings
from dense_hn.files import whole_folder

log = logging.getLogger("dense_hn")


def train(args: argparse.Namespace) -> None:
    """Mine, train, and write ``args.output``."""
    with costs.Costs() as spent:
        model = start(args.encoder, args.passage_length)
        if args.dropout is not None:
            set_dropout(model, args.dropout)
        with costs.part("mine"):
            triples = mined(model, collection.read(args.collection), args)
        with costs.part("train"):
            fit(model, triples, args)
    with whole_folder(args.output, "modules.json", also="*") as partial:
        model.save(str(partial))
        costs.write(partial / COSTS, spent.facts(), str(args.output))


def start(folder: str, length: int) -> SentenceTransformer:
    """The encoder of a folder of dense_hn, passages and queries cut at ``length``."""
    settings = EncoderSettings.of(EncoderSettings.saved(folder))
    layers = modules.Transformer(folder, max_seq_length=length)
    pooling = modules.Pooling(layers.get_embedding_dimension(), settings.pooling)
    parts = [layers, pooling, *([modules.Normalize()] if settings.l2_norm else [])]
    return SentenceTransformer(modules=parts, device="cpu")


def mined(
    model: SentenceTransformer, read: collection.Collection, args: argparse.Namespace
) -> Dataset:
    """(query, relevant, hard negative), for every relevant document of every query.

    With ``judged_only`` negatives are some query's relevant document, as the library has it
    where no corpus is given.
    """
    topics, judged = read.topics["train"], read.qrels["train"]
    qrels = judged
    if args.positives:
        qrels, _ = maxp.meant(judged, [*map(trec.read_run, args.positives)])
    pairs = [
        (topics[qid], read.corpus[docid])
        for qid in topics
        for docid in trec.positives(qrels, qid)
    ]
    queries, passages = map(list, zip(*pairs, strict=True))
    triples = mine_hard_negatives(
        Dataset.from_dict({"query": queries, "passage": passages}),
        model,
        corpus=None if args.judged_only else list(dict.fromkeys(read.corpus.values())),
        num_negatives=args.negatives,
        range_max=args.depth,
        relative_margin=args.relative_margin,
        sampling_strategy=args.sampling,
        output_format="n-tuple",
    )
    if not args.positives:
        return triples
    # What it mined of a relevant document's other passages, which it does not know of.
    relevant: dict[str, set[str]] = {}
    for qid, text in topics.items():
        of = relevant.setdefault(text, set())
        of.update(read.corpus[docid] for docid in trec.positives(judged, qid))
    left = triples.filter(
        lambda row: all(
            text not in relevant[row["query"]]
            for name, text in row.items()
            if name.startswith("negative")
        )
    )
    log.info(
        "%d of %d pairs had another passage of a relevant document as negative, and are left out",
        *(len(triples) - len(left), len(triples)),
    )
    return left


def fit(model: SentenceTransformer, data: Dataset, args: argparse.Namespace) -> None:
    """Train the model in place."""
    loss = losses.MultipleNegativesRankingLoss(model, scale=args.scale)
    # Nothing is saved there; the trainer makes it all the same.
    with TemporaryDirectory() as folder:
        training = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup_steps=args.max_steps // 10,
            seed=args.seed,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
        )
        SentenceTransformerTrainer(
            model=model, args=training, train_dataset=data, loss=loss
        ).train()


def main() -> None:
    """Train from the command line."""
    parser = cli.parser("alternative.py", __doc__)
    parser.add_argument(
        "--collection", required=True, help="folder, as recipes make it"
    )
    parser.add_argument("--encoder", required=True, help="encoder folder of dense_hn")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--max_steps", type=int, required=True)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--passage_length", type=int, default=128)
    parser.add_argument("--negatives", type=int, default=1, help="of a pair (1)")
    parser.add_argument("--depth", type=int, default=100, help="ranks mined from (100)")
    parser.add_argument("--relative_margin", type=float, default=None)
    parser.add_argument(
        "--judged_only",
        type=string_to_bool,
        nargs="?",
        const=True,
        default=False,
        help="mine relevant passages alone",
    )
    parser.add_argument(
        "--positives",
        nargs="*",
        default=(),
        help="runs: of a document its best passage is meant",
    )
    parser.add_argument("--dropout", type=float, default=None, help="the model's")
    parser.add_argument("--sampling", choices=["random", "top"], default="random")
    parser.add_argument("--seed", type=int, default=42)
    train(parser.parse_args())


if __name__ == "__main__":
    cli.run(main)
