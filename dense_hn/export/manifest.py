"""What an exported index was made from: ``manifest.json`` in its folder.

encoder     digest of the encoder that made the passage vectors
corpus      digest of the corpus
passages    how many
dimension   of a vector
vectors     the form they are stored in, and its parameters
dense_hn    version
command     command line that wrote it
files       SHA-256 of ``index`` and ``docid``, where it is of a faiss folder
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dense_hn import DenseHNError, __version__, provenance
from dense_hn.encoder import DenseEncoder
from dense_hn.encoder_settings import EncoderSettings
from dense_hn.export.faiss_index import INDEX
from dense_hn.files import digest, require_file
from dense_hn.vectors import MANIFEST, UNKNOWN, Vectors

FACTS = "encoder", "corpus", "passages", "dimension", "vectors", "dense_hn", "command"


def write(
    path: str | Path,
    vectors: Vectors,
    form: Mapping[str, Any],
    files: Sequence[str | Path] = (),
) -> None:
    """Write to ``path`` what an export of ``vectors`` in this form was made from, and what
    is in its ``files``."""
    passages, dimension = vectors.matrix.shape
    facts = {
        "encoder": vectors.encoder,
        "corpus": vectors.corpus,
        "passages": passages,
        "dimension": dimension,
        "vectors": dict(form),
        "dense_hn": __version__,
        "command": provenance.command(),
    }
    if files:
        facts["files"] = [digest(file) for file in files]
    text = json.dumps(facts, indent=2)
    Path(path).write_text(f"{text}\n", encoding="utf-8")


def read(folder: str | Path) -> dict[str, Any]:
    """Read an exported folder's manifest.

    Raises:
        DenseHNError: there is none, or another program's.
    """
    path = require_file(
        Path(folder) / MANIFEST, "what this index was made from (export it anew)"
    )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return {name: facts[name] for name in FACTS} | {"files": facts.get("files")}
    except (ValueError, KeyError, TypeError) as error:
        raise DenseHNError(
            f"{path}: not as dense_hn.export writes it ({error!r}); export anew, or "
            "remove it if another program wrote it"
        ) from None


def require_belongs(folder: str | Path, encoder: DenseEncoder, name: str) -> None:
    """Check that this encoder's queries belong to an exported folder's passages.

    Raises:
        DenseHNError: they were encoded by another encoder than ``name`` and than the
            one it was trained to search.
    """
    made_from = read(folder)["encoder"]
    if not encoder.searches(made_from):
        theirs = encoder.settings.passage_encoder or encoder.digest()
        raise DenseHNError(
            f"{folder}: made from passages of the encoder {made_from[:12]}, and {name} "
            f"searches those of {theirs[:12]}; export vectors made with it"
        )


def require_searched_by(folder: str | Path, encoder: str | Path) -> None:
    """The same check for folders of both, loading as little as it needs.

    An index without a manifest is only told from the one that an encoder was trained for.

    Raises:
        DenseHNError: as :func:`require_belongs`.
    """
    folder = Path(folder)
    trained_for = EncoderSettings.of(
        EncoderSettings.saved(str(encoder))
    ).passage_encoder
    if (folder / MANIFEST).is_file():
        if trained_for != read(folder)["encoder"]:
            loaded = DenseEncoder.load(str(encoder), device="cpu")
            require_belongs(folder, loaded, str(encoder))
        return
    index = folder / INDEX
    known = trained_for.startswith(UNKNOWN) and index.is_file()
    if known and trained_for != UNKNOWN + digest(index):
        raise DenseHNError(
            f"{folder}: {encoder} was trained for another index than this; name that"
        )


def require_corpus(folder: str | Path, corpus: str, name: str | Path) -> None:
    """Check that an exported folder was made from this corpus.

    Args:
        folder: exported.
        corpus: its digest, as corpus_digest or Vectors.corpus gives it.
        name: what has that digest, for the message.

    Raises:
        DenseHNError: it was made from another one than that of ``name``.
    """
    made_from = read(folder)["corpus"]
    if made_from != corpus:
        raise DenseHNError(
            f"{folder}: made from the corpus {made_from[:12]}, and {name} is of "
            f"{corpus[:12]}; export its vectors"
        )
