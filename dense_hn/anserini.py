"""Runs Anserini's indexers, and counts what they indexed.

They end with status 0 when a document stops them, and count that one, too.
"""

import re
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from dense_hn import DenseHNError, java

# Of this process's JVM. Anserini keeps the stored text of every hit of a batch on the
# heap; left alone, a JVM takes a quarter of the memory before it collects garbage.
HEAP = "-Xmx2g"
# What a Lucene index of ours holds, and Lucene's other files.
HOLDS = ("segments_*", "manifest.json")
ALSO = ("_*", "write.lock")


def index(
    command: list[str], folder: Path, name: str | Path, documents: int, label: str
) -> None:
    """Run an indexer and show how far it says it is.

    Args:
        command: arguments of ``python -m dense_hn.pyserini``.
        folder: where the index is written.
        name: where it is going to be, for messages.
        documents: how many it is to index.
        label: of the progress bar.

    Raises:
        DenseHNError: the index holds another number of documents; gives what the
            indexer said.
    """
    lines = []
    with (
        tqdm(total=documents, desc=label, unit=" documents") as progress,
        subprocess.Popen(
            [sys.executable, "-m", "dense_hn.pyserini", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        for line in process.stdout:
            lines.append(line.strip())
            said = re.search(r"([\d,]+) documents indexed", line)
            if said:
                progress.update(int(said[1].replace(",", "")) - progress.n)
    indexed = count(folder) if any(folder.glob("segments_*")) else 0
    if indexed != documents:
        wrong = [line for line in lines if "ERROR" in line or "Exception" in line]
        raise DenseHNError(
            f"{name}: Lucene indexed {indexed} of {documents} documents: "
            f"{' | '.join((wrong or lines)[-3:])}"
        )


def count(folder: Path) -> int:
    """The number of documents in a Lucene index."""
    java.start_jvm(HEAP)
    from jnius import autoclass

    # Absolute: Java keeps the working directory that it was started in.
    path = autoclass("java.nio.file.Paths").get(str(folder.resolve()))
    directory = autoclass("org.apache.lucene.store.FSDirectory").open(path)
    reader = autoclass("org.apache.lucene.index.DirectoryReader").open(directory)
    documents = reader.numDocs()
    reader.close()
    directory.close()
    return documents
