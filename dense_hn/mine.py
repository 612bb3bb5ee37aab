"""A model's own top-k for topics, as a TREC run.

    python -m dense_hn.mine --encoder DIR --vectors DIR --topics topics.tsv --output run

With ``--index`` the passages are those of a faiss folder, searched exactly.
The same run serves as static hard negatives for training topics (known positives are
removed when it is read) and as the result to be evaluated for test topics. Scores are
the model's own: plain dot products of its vectors, which are normalised only where the
encoder itself normalises them. With ``--qrels`` the run is for training alone: it lists
all relevant documents, so that its recall means nothing. A run that is there, made from
the same weights, passages and topics, is left as it is; one that was stopped goes on with
the topics that are missing. Started with ``torchrun --nproc_per_node N -m dense_hn.mine …``,
N processes search a part of the passages each.
"""

import logging
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count, islice
from pathlib import Path

import torch
from tqdm import tqdm

from dense_hn import (
    __version__,
    cli,
    costs,
    maxp,
    provenance,
    ranks,
    search,
    trec,
)
from dense_hn.encode import encode_texts
from dense_hn.encoder import DenseEncoder
from dense_hn.files import digest, forget_parts, whole_file
from dense_hn.ids import require_from_one, require_id
from dense_hn.index import IndexVectors, read_index
from dense_hn.vectors import Vectors

log = logging.getLogger("dense_hn")

BATCH = 256
LABEL = "Searching vectors"


def retrieve(
    encoder: DenseEncoder,
    vectors: Vectors,
    topics: Mapping[str, str],
    hits: int,
    qrels: Mapping[str, Mapping[str, int]] | None = None,
    *,
    fp16: bool = False,
    first: int = 0,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Exact top ``hits`` of the whole corpus for every topic, one topic after another.

    Of several processes (dense_hn.ranks) each searches a part of the vectors; all return
    the same.

    Args:
        encoder: query encoder that belongs to the vectors.
        vectors: the corpus.
        topics: qid to text.
        hits: documents per topic.
        qrels: judgements whose relevant documents are listed, too, when they are not
            among the hits: they stand behind them with their score, which filters
            compare negatives with.
        fp16: round passages and queries to float16, which halves the time on a GPU.
        first: the topic to begin with, a multiple of BATCH.

    Returns:
        (qid, {docid: score}) in the order of the topics.

    Raises:
        DenseHNError: the vectors were made by another encoder.
    """
    vectors.require_made_by(encoder, "this one")
    matrix, kind = vectors.matrix, torch.float16 if fp16 else torch.float32
    part = ranks.share(len(matrix))
    shard = matrix[part].to(encoder.device, kind)
    top_k = search.top_k
    if ranks.place()[1] > 1:
        top_k = partial(search.top_k_of_shards, first=part.start)

    def found() -> Iterator[tuple[str, dict[str, float]]]:
        queries = encode_texts(encoder, list(topics.values()), "query").to(kind)
        qids = list(topics)
        with tqdm(
            total=len(qids), initial=first, desc=LABEL, unit=" queries"
        ) as progress:
            for start in range(first, len(qids), BATCH):
                batch = qids[start : start + BATCH]
                asked = queries[start : start + BATCH]
                with costs.part("search"):
                    best = top_k(asked.to(encoder.device), shard, k=hits)
                    scores, rows = (tensor.tolist() for tensor in best)
                for place, qid in enumerate(batch):
                    docids = [vectors.docids[n] for n in rows[place]]
                    listed = dict(zip(docids, scores[place], strict=True))
                    relevant = trec.positives(qrels or {}, qid)
                    missing = [d for d in relevant if d not in listed]
                    if missing:
                        behind = matrix[vectors.docids.rows(missing)].to(kind)
                        behind = (behind.float() @ asked[place].float()).tolist()
                        listed |= dict(zip(missing, behind, strict=True))
                    yield qid, listed
                progress.update(len(batch))

    return found()


def mine(
    encoder: DenseEncoder,
    vectors: Vectors,
    topics_path: str | Path,
    hits: int,
    output: str | Path,
    tag: str,
    qrels_path: str | Path | None = None,
    fp16: bool = False,
    max_passage: bool = False,
) -> None:
    """Write :func:`retrieve`'s run, and what it was made from (``OUTPUT.json``).

    With ``max_passage`` the run lists the documents of the ``hits`` passages, each with the
    score of its best one (dense_hn.maxp).

    Nothing is done when ``output`` was made from the same weights, tokenizer, lengths,
    corpus, index, topics and qrels, in the same precision and with the same tag. After a run that was stopped, those topics are not
    searched for again whose hits are there.

    Raises:
        DenseHNError: a file that cannot be read, qrels with a docid without a vector or
            for other topics; a file in the run's place that is none; a tag that is no
            word.
    """
    trec.require_no_other(output)
    require_id(tag, "tag", str(output))
    require_from_one(hits, "hits")
    topics, qrels = trec.read_topics(topics_path), None
    if qrels_path:
        qrels = trec.read_qrels(qrels_path)
        trec.require_known(qrels, vectors.docids, qrels_path, vectors.path)
        judged = {qid for qid in topics if trec.positives(qrels, qid)}
        what = "relevant document"
        trec.tell_uncovered(topics, judged, topics_path, qrels_path, what)
    made_from = {
        "query_encoder": encoder.digest("query"),
        "passage_encoder": vectors.encoder,
        "corpus": vectors.corpus,
        "precision": vectors.precision,
        "index": vectors.files if isinstance(vectors, IndexVectors) else [],
        "topics": digest(topics_path),
        "qrels": qrels_path and digest(qrels_path),
        "hits": hits,
        "fp16": fp16,
        "tag": tag,
    }
    if max_passage:
        made_from["max_passage"] = True
    if provenance.is_made_from(output, made_from):
        log.info("%s is there, made from the same encoder and topics", output)
        if not ranks.place()[0]:
            forget_parts(output)
        return
    vectors.require_made_by(encoder, "this encoder")
    if not encoder.searches(vectors.encoder):
        log.warning("%s does not say which encoder made it: trusted", vectors.path)
    parted = {**made_from, "topics_of_a_part": BATCH, "dense_hn": __version__}
    with costs.Costs() as spent, ranks.parts(output, parted) as parts:
        done = next(n for n in count() if not (parts / str(n)).is_file())
        # Before there are more.
        ranks.wait()
        found = retrieve(
            encoder, vectors, topics, hits, qrels, fp16=fp16, first=done * BATCH
        )
        if max_passage:
            found = maxp.by_document(found)
        if ranks.place()[0]:
            # The other processes search, and one writes.
            deque(found, maxlen=0)
        else:
            while batch := list(islice(found, BATCH)):
                trec.write_run(parts / str(done), batch, tag)
                done += 1
            with whole_file(output) as run, run.open("wb") as file:
                for number in range(done):
                    with (parts / str(number)).open("rb") as part:
                        shutil.copyfileobj(part, file)
    if not ranks.place()[0]:
        # What two encoders may differ in besides their weights.
        names = "pooling", "l2_norm", "query_length", "query_prefix", "tokenization"
        told = {name: getattr(encoder.settings, name) for name in names}
        provenance.record(output, made_from, spent.facts(), query_settings=told)


def main() -> None:
    """Search vectors from the command line."""
    parser = cli.parser("dense_hn.mine", __doc__)
    parser.add_argument("--encoder", required=True, help="folder or hub name")
    passages = parser.add_mutually_exclusive_group(required=True)
    passages.add_argument("--vectors", help="folder from dense_hn.encode")
    passages.add_argument("--index", help="faiss folder as Pyserini searches it")
    parser.add_argument("--topics", required=True, help="TSV, TREC or JSON")
    parser.add_argument(
        "--qrels",
        help="TREC qrels: list their relevant documents, too, where they are no hits; "
        "training with drop_ margins wants their scores",
    )
    parser.add_argument("--hits", type=int, default=200, help="default 200")
    parser.add_argument(
        "--fp16",
        action="store_true",
        help="search in float16, for training topics on a GPU: faster, and scores are "
        "rounded",
    )
    parser.add_argument(
        "--max_passage",
        action="store_true",
        help="passages are D#0, D#1, …: list documents, each with its best passage's score",
    )
    parser.add_argument("--output", required=True, help="run file to write")
    parser.add_argument("--tag", default="dense_hn", help="last column of the run")
    args = parser.parse_args()
    ranks.start()
    vectors = read_index(args.index) if args.index else Vectors.load(args.vectors)
    encoder = DenseEncoder.load(args.encoder)
    mine(
        encoder,
        vectors,
        args.topics,
        args.hits,
        args.output,
        args.tag,
        args.qrels,
        args.fp16,
        args.max_passage,
    )


if __name__ == "__main__":
    cli.run(main)
