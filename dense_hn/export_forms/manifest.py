"""What an export was made from."""

from typing import Any

from dense_hn import __version__, provenance
from dense_hn.encode import Vectors


def manifest(vectors: Vectors) -> dict[str, Any]:
    """Digests, sizes and the command of an export of these vectors, as JSON."""
    return {
        "encoder": vectors.encoder,
        "corpus": vectors.corpus,
        "passages": len(vectors.docids),
        "dimension": vectors.matrix.shape[1],
        "vectors": str(vectors.path),
        "dense_hn": __version__,
        "command": provenance.command(),
    }
