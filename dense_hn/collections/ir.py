"""A data set of ir_datasets, which downloads it and checks what came.

The value is an id, whose splits are ``ID/train``, ``ID/dev`` and ``ID/test`` (an id
without such is one split, test), or ``{SPLIT: ID}`` with any names, all of one corpus:

    ir_datasets:beir/scifact
    ir_datasets:{train: msmarco-passage/train/judged, dl19: msmarco-passage/trec-dl-2019}

Texts are what ir_datasets calls a record's default text: of an MS MARCO passage its
text, of a BEIR document title, blank and text. An MS MARCO document is url, title and
body, joined by ``<sep>`` and cut at 10,000 characters, as the paper's code has it
(arXiv 2104.08051, preprocessing of the released code); its white space becomes single
blanks, since ir_datasets reads the file with line breaks and the paper's code the one
without.

Source: MacAvaney et al. 2021, arXiv 2103.02280.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

from dense_hn import DenseHNError, trec
from dense_hn.collections import by_split
from dense_hn.collections.collection import Collection
from dense_hn.collections.tsv_documents import ms_marco_document
from dense_hn.ids import require_id
from dense_hn.names import unknown
from dense_hn.reading import require_unicode

SPLITS = ("train", "dev", "test")


def read(value: str | Mapping[str, str]) -> Collection:
    """Read a data set, downloading what is not here.

    Args:
        value: id, or split to id.

    Raises:
        DenseHNError: what :func:`splits` raises; a download that failed, a file that
            cannot be read, an id with white space.
    """
    topics: dict[str, trec.Topics] = {}
    qrels: dict[str, trec.Qrels] = {}
    left_out: Counter[str] = Counter()
    # Before the corpus, so that a file that cannot be had shows early.
    for split, dataset in _datasets(value).items():
        name = dataset.dataset_id()
        queries = _records(name, dataset.queries_iter)
        topics[split], _ = _texts(name, queries, "query_id", left_out)
        if dataset.has_qrels():
            qrels[split] = _judged(_records(name, dataset.qrels_iter), left_out)
    # Of one corpus, so that any of them has it.
    name, number = dataset.dataset_id(), dataset.docs_count()
    documents = _records(name, dataset.docs_iter)
    documents = tqdm(documents, "Reading corpus", number, unit=" documents")
    corpus, titled = _texts(name, documents, "doc_id", left_out)
    for judged in (judged for split in qrels.values() for judged in split.values()):
        for docid in [docid for docid in judged if docid not in corpus]:
            del judged[docid]
            left_out["judgements of documents that are not in the corpus"] += 1
    return Collection(
        corpus=corpus,
        topics=topics,
        qrels=qrels,
        left_out=left_out,
        titled=titled if hasattr(dataset.docs_cls(), "title") else None,
    )


def splits(value: str | Mapping[str, str]) -> dict[str, bool]:
    """Split to whether it is judged; downloads nothing.

    Raises:
        DenseHNError: an id that there is not or that lacks documents, queries or texts,
            ids of several corpora, a split that files cannot be named after.
    """
    return {split: one.has_qrels() for split, one in _datasets(value).items()}


def digests(value: str | Mapping[str, str]) -> list[str]:
    """The ids, and the version of ir_datasets.

    These two fix the content: a version holds a checksum of every file that its ids
    need, and checks what it downloads. Sizes and times of the files are left out, since
    they change where the content does not (with the first download, another id's files,
    an index that it builds beside them), and a training of days would be done again.

    Raises:
        DenseHNError: as :func:`splits`.
    """
    import ir_datasets

    names = [f"{split} {one.dataset_id()}" for split, one in _datasets(value).items()]
    return [ir_datasets.__version__, *names]


def _datasets(value: str | Mapping[str, str]) -> dict[str, Any]:
    """The ir_datasets.Dataset of every split."""
    # Here and not above: importing it makes its folders.
    import ir_datasets

    names = _ids(value)
    by_split.require_names(names, "ir_datasets")
    datasets = {split: _dataset(name) for split, name in names.items()}
    corpora: dict[str, str] = {}
    for split, dataset in datasets.items():
        corpora[ir_datasets.docs_parent_id(dataset.dataset_id())] = split
    if len(corpora) > 1:
        raise DenseHNError(
            f"ir_datasets: the splits {', '.join(corpora.values())} are of different "
            f"corpora ({', '.join(corpora)}); name ids of one"
        )
    return datasets


def _ids(value: Any) -> dict[str, str]:
    """Split to id."""
    import ir_datasets

    if isinstance(value, str):
        names = list(ir_datasets.registry)
        found = {split: f"{value}/{split}" for split in SPLITS}
        found = {split: name for split, name in found.items() if name in names}
        return found or {"test": value}
    strings = isinstance(value, Mapping) and [*value, *value.values()]
    if not strings or not all(isinstance(string, str) for string in strings):
        raise DenseHNError(f"ir_datasets: expected an id or {{SPLIT: ID}}, got {value}")
    return dict(value)


def _dataset(name: str) -> Any:
    """A data set that has documents and queries, each with a text."""
    import ir_datasets

    try:
        dataset = ir_datasets.load(name)
    except KeyError:
        about = unknown("id", name, ir_datasets.registry)
        raise DenseHNError(f"ir_datasets: {about}") from None
    for what in ("docs", "queries"):
        if not dataset.has(what):
            raise DenseHNError(f"ir_datasets: {name} has no {what}; name an id with")
        kind = getattr(dataset, f"{what}_cls")()
        if not hasattr(kind, "default_text"):
            raise DenseHNError(
                f"ir_datasets: {name}: {kind.__name__} has no default text (its fields: "
                f"{', '.join(kind._fields)}); write the text that you want to files of "
                "your own, and name their folder (collection: {folder: …})"
            )
    return dataset


def _records(name: str, records: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """What ir_datasets gives, its errors told as ours."""
    try:
        yield from records()
    # Downloads, archives and parsers all raise their own.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DenseHNError(
            f"ir_datasets: {name} could not be read: {_advice(name, error)} ({reason})"
        ) from error


def _advice(name: str, error: Exception) -> str:
    """Where to place the file of a failed download, or where all files of an id are."""
    import ir_datasets

    family = name.partition("/")[0]
    folder = ir_datasets.util.home_path() / family
    url = getattr(getattr(error, "request", None), "url", None)
    for file in ir_datasets.util.DownloadConfig.contents().get(family, {}).values():
        if url and file.get("url") == url and "cache_path" in file:
            return (
                f"{url} did not come; fetch it where there is a network, and place it "
                f"as {folder / file['cache_path']}"
            )
    return (
        f"https://ir-datasets.com/{family}.html says where its files are from, and they "
        f"belong in {folder}"
    )


def _texts(
    name: str, records: Iterable[Any], key: str, left_out: Counter[str]
) -> tuple[dict[str, str], int]:
    """Id to text of documents or queries, and how many texts start with their title.

    Of records with one id the first is taken.
    """
    texts: dict[str, str] = {}
    titled = 0
    for record in records:
        found = getattr(record, key)
        require_id(found, key, f"ir_datasets: {name}")
        if found in texts:
            left_out[f"records with the {key} of another"] += 1
        else:
            texts[found] = text = _text(record)
            require_unicode(text, f"ir_datasets: {name}: {found}")
            title = getattr(record, "title", "").strip()
            titled += bool(title) and text.startswith(title)
    return texts, titled


def _text(record: Any) -> str:
    if type(record).__name__ == "MsMarcoDocument":
        fields = (record.url, record.title, record.body)
        return ms_marco_document(*(" ".join(field.split()) for field in fields))
    return record.default_text().strip()


def _judged(records: Iterable[Any], left_out: Counter[str]) -> trec.Qrels:
    """The judgements of a split; of several of one document the highest."""
    qrels: trec.Qrels = {}
    for record in records:
        judged = qrels.setdefault(record.query_id, {})
        if record.doc_id in judged:
            left_out["repeated judgements (the highest counts)"] += 1
        level = int(record.relevance)
        judged[record.doc_id] = max(level, judged.get(record.doc_id, level))
    return qrels
