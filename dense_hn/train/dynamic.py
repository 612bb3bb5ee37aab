"""Dynamic hard negatives while both sides learn: the passages of a step's hits learn, too.

    python -m dense_hn.train dynamic --encoder DIR --corpus corpus.jsonl --topics train.tsv \\
        --qrels train.qrels --output_dir models/dynamic [--vectors vectors/warmup]

At every step the batch's queries search a matrix of passage vectors, and some of their hits
are encoded again, with gradients, as the queries' hard negatives. Those vectors, and the
positives', go back into the matrix; the rest of it is what an earlier encoder made, and every
``slice_steps`` the next ``slice_passages`` of it are encoded again. How old it has become is
logged: ``cosine_to_fresh``, of a sample of the matrix to the same passages encoded anew.

The loss is one of STAR's, in which the hits stand in the place of static negatives. ADORE
(arXiv 2104.08051, section 5.2) keeps the passages' vectors, so that they are exact and an index
of them stays; training the passages on retrieval results is what that paper leaves open.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from dense_hn import DenseHNError, costs, ranks, search, trec
from dense_hn.collections.corpus import Corpus
from dense_hn.columns import Docids
from dense_hn.encode import encode_in_memory
from dense_hn.encoder import DenseEncoder
from dense_hn.token_cache import tokens_of
from dense_hn.train import joint
from dense_hn.train.batches import JointCollator
from dense_hn.train.joint import check
from dense_hn.train.joint_arguments import JointArguments
from dense_hn.train.supervision import Supervision
from dense_hn.train.training_arguments import DenseTrainingArguments
from dense_hn.vectors import Vectors

__all__ = ["Arguments", "check", "train"]

DYNAMIC = "hits of the step, by the vectors in the matrix"
# Passages that are encoded anew to say how old the matrix is, in the step of each line of the
# log.
LOOKED_AT = 64


@dataclass(kw_only=True)
class Arguments(JointArguments):
    """As JointArguments, and where the step's negatives come from."""

    vectors: str | None = field(
        default=None,
        metadata={
            "help": "Folder from dense_hn.encode, by this encoder, to start with; without "
            "it, the corpus is encoded first."
        },
    )
    dropout: float | None = field(
        default=0.0,
        metadata={
            "help": "Dropout; queries are searched by the vectors that learn, so with any "
            "they are searched by random ones."
        },
    )
    dynamic_hits: int = field(
        default=200, metadata={"help": "Hits of a query that are drawn from."}
    )
    dynamic_per_query: int = field(
        default=1,
        metadata={"help": "Hits of a query that are encoded again as its negatives."},
    )
    slice_steps: int = field(
        default=1, metadata={"help": "Every so many steps, a slice is encoded again."}
    )
    slice_passages: int = field(
        default=32, metadata={"help": "Passages of a slice; 0: none ever."}
    )
    passage_length: int | None = field(
        default=None,
        metadata={
            "help": "Tokens of the step's passages, if not the encoder's own, which the "
            "others have."
        },
    )

    def finds_negatives(self) -> bool:
        """Always."""
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.dynamic_per_query <= self.dynamic_hits - self.negatives_skip:
            raise DenseHNError(
                f"dynamic_per_query is {self.dynamic_per_query}: it is from 1 to "
                f"dynamic_hits ({self.dynamic_hits}) less negatives_skip"
            )
        if self.slice_steps < 1 or self.slice_passages < 0:
            raise DenseHNError("slice_steps starts at 1, slice_passages at 0")


class Matrix(nn.Module):
    """Passage vectors of different ages, a part of every checkpoint."""

    def __init__(self, vectors: Tensor) -> None:
        """Hold [N, D] float32, which will change."""
        super().__init__()
        self.register_buffer("vectors", vectors)


class DynamicTrainer(joint.JointTrainer):
    """Searches with the step's queries, and encodes some of what they find."""

    def __init__(
        self,
        *,
        matrix: Matrix,
        docids: Docids,
        qrels: trec.Qrels,
        tokens: Callable[[Sequence[int]], list],
        told: Arguments,
        data_collator: JointCollator,
        **kwargs: Any,
    ) -> None:
        """Take what is searched besides JointTrainer's arguments.

        Args:
            matrix: N vectors, of the encoder in training.
            docids: N, theirs.
            qrels: of the training topics, with relevant documents among them.
            tokens: rows of the matrix to the tokens of their passages.
            told: the stage's arguments.
            data_collator: makes the batches, once the hits are known.
            kwargs: JointTrainer's.
        """
        super().__init__(data_collator=data_collator.queries, **kwargs)
        self._collate = data_collator.passages
        self._excluded = data_collator.excluded
        self._matrix = matrix
        self._docids = docids
        self._qrels = qrels
        self._tokens = tokens
        self._told = told
        self._looked_after = -1

    def compute_loss(self, model, inputs, return_outputs=False, **_) -> Tensor:
        """Called by the Trainer with queries and items of :class:`JointCollator`."""
        items, number = inputs["items"], len(inputs["qids"])
        self._look_after(model)
        with costs.part("encode"):
            queries = ranks.gather(model(**inputs["queries"]), number)
        with costs.part("search"):
            items = self._with_hits(items, queries.detach())
        with costs.part("data"):
            batch = self._prepare_inputs(self._collate(items))
        with costs.part("encode"):
            passages = ranks.gather(model(**batch["passages"]), len(batch["docids"]))
        with costs.part("loss"):
            loss, scores = self.loss_of(queries, passages, inputs | batch)
        # Of a document that stands there twice, one: which would win is not defined.
        columns = {docid: n for n, docid in enumerate(batch["docids"])}
        rows = torch.from_numpy(self._docids.rows(list(columns)))
        fresh = passages.detach()[list(columns.values())]
        self._matrix.vectors[rows.to(passages.device)] = fresh
        return (loss, {"scores": scores, "items": items}) if return_outputs else loss

    def _with_hits(
        self, items: Sequence[Mapping[str, Any]], queries: Tensor
    ) -> list[dict[str, Any]]:
        """The items, with hits of their first topics among their hard negatives."""
        firsts, place = [], 0
        for item in items:
            firsts.append(place)
            place += len(item["topics"])
        qids = [next(iter(item["topics"])) for item in items]
        queries = queries[firsts]
        scores, rows = search.top_k(
            queries, self._matrix.vectors, self._told.dynamic_hits
        )
        found = [[self._docids[row] for row in of] for of in rows.tolist()]
        allowed = torch.tensor(
            [
                [docid not in self._excluded[qid] for docid in of]
                for qid, of in zip(qids, found, strict=True)
            ],
            device=rows.device,
        )
        allowed[:, : self._told.negatives_skip] = False
        best = self._best(qids, queries)
        # A relevant one may stand above itself, by rounding.
        relevant = torch.tensor(
            [
                [self._qrels[qid].get(docid, 0) > 0 for docid in of]
                for qid, of in zip(qids, found, strict=True)
            ],
            device=rows.device,
        )
        above = (scores > best[:, None]) & ~relevant
        self.telemetry.add("found_above", above.sum(dim=1))
        scale = self.model.settings.scale
        allowed = self.trusted(
            DYNAMIC,
            allowed,
            scale * scores,
            scale * best,
            qids,
            lambda row, column: found[row][column],
            "suspected_hits",
        )
        chosen = []
        for item, qid, of, left in zip(
            items, qids, found, allowed.tolist(), strict=True
        ):
            of = [docid for docid, may in zip(of, left, strict=True) if may]
            # What is drawn from runs counts once.
            of = [docid for docid in of if docid not in item["hard"]]
            draw = Random(f"{self.args.seed} dynamic {self.state.global_step} {qid}")
            drawn = draw.sample(of, min(self._told.dynamic_per_query, len(of)))
            chosen.append({**item, "hard": [*item["hard"], *drawn]})
        return chosen

    def _best(self, qids: Sequence[str], queries: Tensor) -> Tensor:
        """[B] the highest score of a relevant document, of queries [B, D]."""
        best = []
        for qid, query in zip(qids, queries, strict=True):
            rows = self._docids.rows(trec.positives(self._qrels, qid))
            vectors = self._matrix.vectors[torch.from_numpy(rows).to(query.device)]
            best.append((vectors @ query).max())
        return torch.stack(best)

    def _look_after(self, model: nn.Module) -> None:
        """Encode a slice again when it is due, and see how old the rest is."""
        step, number = self.state.global_step, len(self._docids)
        if step == self._looked_after:
            # Another part of the same step's batch.
            return
        self._looked_after = step
        size = min(self._told.slice_passages, number)
        if size and step % self._told.slice_steps == 0:
            turn = step // self._told.slice_steps
            rows = [(turn * size + n) % number for n in range(size)]
            with costs.part("refresh"):
                self._matrix.vectors[rows] = self._fresh(model, rows)
        logged = self.args.logging_strategy == "steps"
        if logged and (step + 1) % self.state.logging_steps == 0:
            draw = Random(f"{self.args.seed} age {step}")
            rows = draw.sample(range(number), min(LOOKED_AT, number))
            with costs.part("refresh"):
                fresh = self._fresh(model, rows)
            old = self._matrix.vectors[rows]
            self.telemetry.add(
                "cosine_to_fresh", nn.functional.cosine_similarity(fresh, old)
            )

    @torch.no_grad()
    def _fresh(self, model: nn.Module, rows: Sequence[int]) -> Tensor:
        """The vectors of rows by the encoder as it is, without dropout."""
        was = model.training
        model.eval()
        batch = self.model.batch(self._tokens(ranks.own(rows)))
        vectors = ranks.gather(model(**self._prepare_inputs(batch)), len(rows))
        model.train(was)
        return vectors


def train(args: Arguments, training: DenseTrainingArguments) -> None:
    """Train both sides and write the encoder to ``training.output_dir``.

    Raises:
        DenseHNError: as joint.train; vectors of another encoder or corpus.
    """
    joint.train(args, training, partial(_trainer, args))


def _trainer(
    told: Arguments,
    supervision: Supervision,
    corpus: Corpus,
    *,
    model: DenseEncoder,
    **kwargs: Any,
) -> DynamicTrainer:
    docids, weight = corpus.docids, model.settings.document_weight
    if weight:
        raise DenseHNError(
            f"{told.encoder}: document_weight is {weight}, and here passages are encoded at every "
            "step, without their documents; set it to 0 for this stage (python -m "
            "dense_hn.encoder), or train star and adore"
        )
    if told.vectors:
        vectors = Vectors.load(told.vectors)
        vectors.require_made_by(model, told.encoder)
        if vectors.corpus != corpus.digest:
            raise DenseHNError(
                f"{told.vectors}: made from another corpus than {told.corpus}; encode it"
            )
    else:
        vectors = encode_in_memory(model, corpus)
    pool = Docids.of(supervision.pool(docids)) if told.judged_only else docids
    rows = docids.rows(pool)
    # A vectors folder's file is mapped, and stays as it is when its pages are written to.
    matrix = vectors.matrix
    if told.judged_only:
        matrix = matrix[torch.from_numpy(rows)]
    matrix = Matrix(matrix)
    # Checkpoints have what is the encoder's.
    model.add_module("matrix", matrix)
    # As long as those that the matrix begins with.
    tokens = tokens_of(model, corpus, "passage")
    return DynamicTrainer(
        model=model,
        matrix=matrix,
        docids=pool,
        qrels=supervision.qrels,
        tokens=lambda places: [tokens[rows[place]] for place in places],
        told=told,
        **kwargs,
    )
