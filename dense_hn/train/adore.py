"""ADORE: dynamic hard negatives, the exact top-k of the whole corpus at every step.

    python -m dense_hn.train adore --encoder models/star --vectors vectors/star \\
        --topics train.tsv --qrels train.qrels --output_dir models/adore

Only the query encoder is trained; the passage vectors stay as they are, so an index
made of them needs no change. With ``--index`` in the place of ``--vectors`` they come out
of a faiss folder of Pyserini's, whoever made it.

Queries are encoded without dropout (the released code searches with it). One forward pass
then serves search and loss, half the cost of two, and the hits and ranks that LambdaLoss
weighs are those of the scores that it moves, and of the encoder as it will be used. With
dropout in both, a query would be searched by a random vector; with dropout in the loss
alone, the ranks would be of other scores than the gradient.

With ``--form pq`` or ``opq-pq``, or an ``--index`` of such a form, scores and hits are those
of the product-quantised passages, so that the query encoder learns the compressed space, and
with ``--train_centroids true`` what the codes stand for is trained with it (JPQ, arXiv
2108.00644; the pairs are weighted as here). ``--index_output`` gets the index that the
encoder then searches.

Random documents of the corpus and static negatives can be mixed in. They stand behind
the hits, so that RR and nDCG weigh them only against positives within metric_cut.

Source: arXiv 2104.08051, section 5.2.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import set_seed

from dense_hn import DenseHNError, costs, losses, provenance, trec
from dense_hn.belonging import require_relevant_above, require_same_vectors
from dense_hn.collections.corpus import corpus_digest, read_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.export import faiss_index, folder, manifest
from dense_hn.export.faiss_index import CODED
from dense_hn.files import require_replaceable
from dense_hn.index import IndexVectors, coded, read_index
from dense_hn.negatives import RandomNegatives
from dense_hn.quantised import Codes
from dense_hn.ranks import gather
from dense_hn.search_command import (
    as_typed,
    require_recognised,
    search_command,
)
from dense_hn.train.adore_arguments import Arguments, same
from dense_hn.train.distillation import Distillation, taught
from dense_hn.train.evaluation import Evaluator, take_share
from dense_hn.train.hard_negatives import HardNegatives
from dense_hn.train.passages import CodedPassages, WholePassages
from dense_hn.train.query_batches import (
    AdoreCollator,
    AdoreDataset,
    scores_of,
    without,
)
from dense_hn.train.supervision import Supervision
from dense_hn.train.telemetry import LastHits
from dense_hn.train.trainer import DenseTrainer, TellEpoch, fit
from dense_hn.train.training_arguments import DenseTrainingArguments
from dense_hn.vectors import Vectors

DYNAMIC = "hits of the step, by its scores"


class AdoreTrainer(DenseTrainer):
    """Retrieves with the current query vectors, and applies LambdaLoss to the hits."""

    def __init__(
        self,
        *,
        vectors: Vectors,
        codes: Codes | None = None,
        pool: np.ndarray | None = None,
        hits: int,
        cut: int,
        metric: str,
        skip: int = 0,
        centroid_learning_rate: float | None = None,
        distillation: Distillation | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._distillation = distillation
        self._docids = vectors.docids
        device = self.args.device
        # What halves the layers' precision halves the vectors', too, on a GPU.
        half = (self.args.fp16 or self.args.bf16) and device.type == "cuda"
        kind = torch.float16 if half else torch.float32
        if codes is None:
            self._passages = WholePassages(vectors.matrix, pool, device, kind)
        else:
            self._passages = CodedPassages(codes, pool, device)
        self._trained = None if centroid_learning_rate is None else codes.centroids
        self._centroid_learning_rate = centroid_learning_rate
        self._hits = hits
        self._cut = cut
        self._metric = metric
        self._skip = skip
        self._last = LastHits(len(self.train_dataset or ()), self.args.device)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Called by the Trainer; centroids are a group with a rate of their own."""
        new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if new and self._trained is not None:
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if p is not self._trained]
            rate = self._centroid_learning_rate
            own = {"params": [self._trained], "lr": rate, "weight_decay": 0.0}
            optimizer.add_param_group(own)
        return optimizer

    def compute_loss(self, model, inputs, return_outputs=False, **_) -> Tensor:
        """Called by the Trainer with a batch of :class:`AdoreCollator`."""
        model.eval()
        with costs.part("encode"):
            queries = model(**inputs["queries"])
            queries = gather(queries, len(inputs["qids"]))
        with costs.part("search"):
            others = inputs["others"]
            number = self._hits + others.shape[1]
            dynamic = self._passages.search(queries.detach(), number)
            dynamic = without(dynamic, others)[:, : self._hits]
        with costs.part("loss"):
            loss, hits = self._loss(queries, dynamic, inputs)
        return (loss, {"hits": hits}) if return_outputs else loss

    def _loss(
        self, queries: Tensor, dynamic: Tensor, inputs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """The loss of query vectors [B, D] with their ``dynamic`` [B, K] hits, and the
        hits with what was drawn [B, K + N]."""
        drawn = inputs["drawn"]
        # What is drawn stands behind the hits, and counts once.
        again = (drawn[:, :, None] == dynamic[:, None, :]).any(dim=2)
        hits = torch.cat([dynamic, drawn.masked_fill(again, -1)], dim=1)
        scaled = self.model.settings.scale * queries[:, :, None]
        retrieved = (self._passages.take(hits) @ scaled)[:, :, 0]
        rows, grades = inputs["rows"], inputs["grades"]
        positive = (self._passages.take(rows) @ scaled)[:, :, 0]
        ranks = losses.positive_ranks(positive, rows, grades > 0, hits)
        excluded = inputs["excluded"][:, :, None] == hits[:, None, :]
        is_negative = ~excluded.any(dim=1) & (hits >= 0)
        is_negative[:, : self._skip] = False
        self._tell(inputs, hits, ranks)
        is_negative = self.trusted(
            DYNAMIC,
            is_negative,
            retrieved,
            positive.masked_fill(grades == 0, -torch.inf).amax(dim=1),
            inputs["qids"],
            lambda row, column: self._docids[hits[row, column]],
        )
        loss = losses.lambda_loss(
            positive, ranks, grades, retrieved, is_negative, self._cut, self._metric
        )
        if self._distillation is None:
            return loss, hits
        told = scores_of(rows, inputs).masked_fill(grades == 0, torch.nan)
        best = told.nan_to_num(-torch.inf).argmax(dim=1, keepdim=True)
        loss = self._distillation.mixed(
            loss,
            positive.gather(1, best)[:, 0],
            retrieved,
            is_negative,
            told.gather(1, best)[:, 0],
            scores_of(hits, inputs),
        )
        return loss, hits

    def _tell(self, inputs: Mapping[str, Any], hits: Tensor, ranks: Tensor) -> None:
        """Where the best positives stand, and how many of the hits are not new."""
        padded = inputs["grades"] == 0
        best = ranks.masked_fill(padded, torch.iinfo(ranks.dtype).max).amin(dim=1)
        self.telemetry.add("rank_of_positive", best)
        self.telemetry.add("positive_first", best == 1)
        self.telemetry.add("not_retrieved", best > hits.shape[1])
        self.telemetry.add("hits_as_before", self._last.again(inputs["numbers"], hits))


def require_negatives(
    args: Arguments,
    topics: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    passages: int,
) -> None:
    """Check that more hits are retrieved than any query has positives.

    Raises:
        DenseHNError: names the query with the most.
    """
    number = {qid: len(trec.positives(qrels, qid)) for qid in topics}
    most = max(number, key=number.get)
    if number[most] >= min(args.adore_hits, passages):
        raise DenseHNError(
            f"{args.qrels}: query {most!r} has {number[most]} relevant documents and "
            f"adore_hits is {args.adore_hits}: no negative would be left; raise it"
        )


def check(args: Arguments, training: DenseTrainingArguments) -> None:
    """Refuse settings that do not go together; needs no file.

    Raises:
        DenseHNError: names them.
    """
    args.require_complete(training)
    if args.index_output and same(args.index_output, training.encoder_dir):
        raise DenseHNError(
            f"index_output is {args.index_output}, where the encoder goes; name another "
            "folder"
        )
    if training.gradient_checkpointing:
        raise DenseHNError(
            "adore: transformers checkpoints only layers in training mode, and queries "
            "are encoded without dropout; use --gradient_cache instead of "
            "--gradient_checkpointing"
        )


def train(args: Arguments, training: DenseTrainingArguments) -> None:
    """Train with ADORE and write the query encoder to ``training.output_dir``.

    All input is read and checked before the encoder is loaded.

    Raises:
        DenseHNError: a file that cannot be read, a relevant docid without a vector, a
            topic without positives, vectors or an index that another encoder made,
            an index of another corpus, fewer hits than a query has positives (there
            would be no negative).
    """
    check(args, training)
    supervision = Supervision(args)
    topics, qrels = supervision.topics, supervision.qrels
    learnt = taught(args, supervision)
    training.require_a_batch(len(learnt))
    vectors, parameters = _passages(args, supervision)
    docids = vectors.docids
    pool = supervision.pool(docids)
    require_negatives(args, topics, qrels, len(pool))
    drawn = HardNegatives(
        args, supervision, docids, str(vectors.path), training.seed
    ).sources()
    if args.random_per_query:
        number = args.random_per_query
        drawn.append(RandomNegatives(pool, supervision.excluded, number, training.seed))
    corpus = _corpus(args, vectors)
    known = vectors.corpus or (corpus_digest(corpus) if corpus else "")
    if known:
        provenance.tell_of_another_corpus(args.runs(), known, vectors.path)
    codes, evaluator = None, None
    if args.eval_topics:

        def passages(_: DenseEncoder, judged: AbstractSet[str]) -> Vectors:
            take = codes.decoded if args.makes_index() else None
            share, folded = args.eval_share, args.eval_max_passage
            return take_share(vectors, judged, share, training.seed, folded, take)

        told = topics, supervision.judged
        evaluator = Evaluator(args, *told, training.seed, docids, passages)
    training.require_replaceable(args.encoder)

    set_seed(training.seed)
    encoder = _encoder(args, training, supervision, vectors, corpus)
    codes = _codes(args, encoder, vectors, parameters)
    encoder.settings = replace(encoder.settings, passage_encoder=vectors.encoder)
    dataset = AdoreDataset(
        {qid: topics[qid] for qid in learnt},
        qrels,
        supervision.excluded,
        docids,
        drawn,
        supervision.teacher if args.distil else None,
        supervision.others,
    )
    trainer = AdoreTrainer(
        model=encoder,
        args=training,
        train_dataset=dataset,
        data_collator=AdoreCollator(encoder, args.query_length),
        vectors=vectors,
        codes=codes,
        centroid_learning_rate=args.centroid_rate(),
        pool=docids.rows(pool) if args.judged_only else None,
        hits=args.adore_hits,
        cut=args.metric_cut,
        metric=args.metric,
        skip=args.negatives_skip,
        distillation=args.distillation(),
        filter_=supervision.filter,
        report=supervision.report,
        evaluator=evaluator,
        callbacks=[TellEpoch(dataset), *args.callbacks()],
    )
    keep = partial(_keep, args, training.encoder_dir, vectors, codes, encoder, topics)
    fit(trainer, encoder, args, keep)
    if trainer.is_world_process_zero():
        supervision.write_report(training.encoder_dir, corpus)
        _say_how_to_search(args, training.encoder_dir, encoder)


def _passages(
    args: Arguments, supervision: Supervision
) -> tuple[Vectors, dict[str, int]]:
    """The vectors that are searched, and the settings of the form that they shall get."""
    vectors = read_index(args.index) if args.index else Vectors.load(args.vectors)
    supervision.require_known(args, vectors.docids, str(vectors.path))
    if args.form:
        asked = {} if args.pq_m is None else {"pq_m": args.pq_m}
        return vectors, faiss_index.settle(args.form, asked, *vectors.matrix.shape)
    if args.train_centroids and _coded(vectors) is None:
        raise DenseHNError(
            f"{vectors.path}: no index of the form {' or '.join(CODED)} with 8 bits a code, so "
            "it has no centroids to train; export one"
        )
    return vectors, {}


def _coded(vectors: Vectors) -> Codes | None:
    """The codes of an index that is product-quantised."""
    return vectors.codes if isinstance(vectors, IndexVectors) else None


def _corpus(args: Arguments, vectors: Vectors) -> Mapping[str, str]:
    """The passages' texts where something needs them, checked to be the index's."""
    filtered = args.filter() or args.negatives_skip
    if not args.corpus or not (filtered or args.index):
        return {}
    corpus = read_corpus(args.corpus)
    if args.index and corpus and vectors.corpus:
        manifest.require_corpus(args.index, corpus_digest(corpus), args.corpus)
    return corpus


def _encoder(
    args: Arguments,
    training: DenseTrainingArguments,
    supervision: Supervision,
    vectors: Vectors,
    corpus: Mapping[str, str],
) -> DenseEncoder:
    """The encoder to train, checked to belong to the vectors."""
    encoder = DenseEncoder.load(args.encoder, **args.encoder_settings())
    encoder.require_room_for(args.query_length)
    vectors.require_made_by(encoder, args.encoder)
    if args.index or args.makes_index():
        require_recognised(training.encoder_dir, encoder.settings.architecture)
    if not encoder.searches(vectors.encoder):
        # Passages that another encoder made cannot be compared with this one's.
        if corpus and not encoder.settings.passage_encoder:
            require_same_vectors(vectors, encoder, args.encoder, corpus, args.corpus)
        else:
            topics, qrels = supervision.topics, supervision.qrels
            require_relevant_above(vectors, encoder, args.encoder, topics, qrels)
    if args.makes_index():
        folder.require_searchable(vectors, {args.encoder: encoder})
        require_replaceable(args.index_output, *folder.HOLDS)
    return encoder


def _codes(
    args: Arguments,
    encoder: DenseEncoder,
    vectors: Vectors,
    parameters: Mapping[str, int],
) -> Codes | None:
    """The passages' codes, where they are searched by; made a part of the encoder where
    they are trained with it."""
    codes = coded(vectors, args.form, parameters) if args.form else _coded(vectors)
    if codes is None:
        return None
    codes.requires_grad_(args.train_centroids)
    if args.train_centroids:
        # Checkpoints and the optimiser have what is the encoder's.
        encoder.add_module("codes", codes)
        # Each process has their whole gradient, and DDP knows only what forward uses.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            encoder, ["codes.centroids"]
        )
    return codes


def _say_how_to_search(
    args: Arguments, encoder_dir: str, encoder: DenseEncoder
) -> None:
    """Print Pyserini's command, where an index is named."""
    index = args.index_output or args.index
    if not index:
        return
    command = search_command(
        encoder.settings,
        encoder=encoder_dir,
        index=index,
        topics="TOPICS.tsv",
        output="RUN.txt",
    )
    print(as_typed("search.faiss", command))


def _keep(
    args: Arguments,
    encoder_dir: str,
    vectors: Vectors,
    codes: Codes | None,
    encoder: DenseEncoder,
    topics: Mapping[str, str],
) -> None:
    """Save the encoder, and the index where one is made."""
    if args.train_centroids:
        # No other encoder was trained for them, and this one for no others.
        vectors = replace(vectors, encoder=codes.digest(vectors.encoder))
        encoder.settings = replace(encoder.settings, passage_encoder=vectors.encoder)
    encoder.save(encoder_dir)
    if args.makes_index():
        folder.export_codes(
            vectors,
            args.index_output,
            {encoder_dir: encoder},
            codes,
            CODED[codes.rotation is not None],
            list(topics.values()),
        )
