"""Topics and qrels that Pyserini knows by name: ``pyserini:dl19-passage``.

They stay out of the command lines' ``--topics`` and ``--qrels``: asking Pyserini starts a
JVM, which what trains on a GPU machine has no need of.
"""

from pathlib import Path

from dense_hn import DenseHNError, java, trec
from dense_hn.names import unknown

PREFIX = "pyserini:"


def read_topics(name: str) -> trec.Topics:
    """The titles of Pyserini's topics.

    Args:
        name: as ``pyserini.search.get_topics`` takes it, behind :data:`PREFIX`.

    Raises:
        DenseHNError: no such topics; no JDK; they are neither in Pyserini's cache nor can
            be fetched: says which file to put where.
    """
    topic = _known(name, "topics")
    from jnius import JavaException
    from pyserini.search import _base

    try:
        # pyserini.search.get_topics does the same, and makes numbers of the ids.
        found = _base.JTopicReader.getTopicsWithStringIds(topic)
    except JavaException as error:
        raise _missing(name, topic.path) from error
    topics = {q: found.get(q).get("title") for q in sorted(found.keySet().toArray())}
    for qid, text in topics.items():
        if not (text and text.strip()):
            raise DenseHNError(f"{name}: topic {qid!r} has no text, no title at least")
    return topics


def read_qrels(name: str) -> trec.Qrels:
    """Pyserini's qrels; as :func:`read_topics`, for ``pyserini.search.get_qrels_file``."""
    qrels = _known(name, "qrels")
    from jnius import JavaException
    from pyserini.search import get_qrels_file

    try:
        path = get_qrels_file(name.removeprefix(PREFIX))
    except JavaException as error:
        raise _missing(name, qrels.path) from error
    return trec.read_qrels(path)


def _known(name: str, what: str):
    """Anserini's entry of that name; starts the JVM."""
    java.start_jvm()
    from pyserini.search import _base

    known = {"topics": _base.topics_mapping, "qrels": _base.qrels_mapping}[what]
    key = name.removeprefix(PREFIX)
    if key not in known:
        raise DenseHNError(f"{name}: {unknown(f'{what} of Pyserini', key, known)}")
    return known[key]


def _missing(name: str, file: str) -> DenseHNError:
    from jnius import autoclass

    # Anserini looks there, whatever PYSERINI_CACHE says.
    home = Path(autoclass("java.lang.System").getProperty("user.home"))
    cache = home / ".cache" / "pyserini" / "topics-and-qrels"
    return DenseHNError(
        f"{name}: Pyserini could not fetch {file}; put it into {cache}, or name a file of "
        "your own"
    )
