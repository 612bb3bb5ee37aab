"""Trainings that were stopped go on from their last checkpoint, and from no other's."""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from dense_hn import DenseHNError, __version__
from dense_hn.encoder_settings import CARD
from dense_hn.false_negatives import Report
from dense_hn.files import whole_file
from dense_hn.reading import read_object
from dense_hn.vectors import MANIFEST, MATRIX

log = logging.getLogger("dense_hn")

# In a training's own folder: what it was made from.
MADE_FROM = "made_from.json"
# In a checkpoint, written last: what the Trainer does not keep.
WHOLE = "dense_hn_state.json"
# Settings of transformers with which the weights are the same.
APART = (
    *("output_dir", "encoder_dir", "run_name", "disable_tqdm", "resume_", "save_"),
    *("log_", "logging_", "report_to", "push_to_hub", "hub_", "project", "trackio_"),
    *("local_rank", "ddp_", "kept", "dataloader_num_workers", "dataloader_pin_"),
    *("dataloader_prefetch_", "dataloader_multiprocessing_", "dataloader_in_order"),
)
# Bytes that a file is known by, besides its length.
START = 2**26


class Checkpoints(TrainerCallback):
    """Saves every few minutes, and what was dropped as a false negative with it."""

    def __init__(
        self, minutes: float, kept: int, report: Report | None, apart: int = 0
    ) -> None:
        """Say when to save, and what.

        Args:
            minutes: between two; 0: only when the Trainer's settings say so.
            kept: checkpoints at most, besides the best.
            report: what is saved with them.
            apart: no saving at multiples of this step; 0: at any.
        """
        self._seconds = 60 * minutes
        self._kept = kept
        self._report = report
        self._apart = apart
        self._saved = time.monotonic()

    def on_train_begin(self, args, state, control, **_) -> None:
        """Called by the Trainer; a checkpoint's report is taken up."""
        self._saved = time.monotonic()
        if not args.resume_from_checkpoint:
            return
        path = Path(args.resume_from_checkpoint) / WHOLE
        if self._report is not None and path.is_file():
            self._report.restore(json.loads(path.read_text(encoding="utf-8")))

    def on_step_end(self, args, state, control, **_) -> None:
        """Called by the Trainer, which saves when it is told to."""
        due = bool(self._seconds) and time.monotonic() - self._saved >= self._seconds
        due = due and not (self._apart and state.global_step % self._apart == 0)
        if args.world_size > 1:
            # Clocks differ, and all processes save together.
            told = torch.tensor([due], device=args.device)
            torch.distributed.broadcast(told, 0)
            due = bool(told)
        control.should_save |= due

    def on_save(self, args, state, control, **_) -> None:
        """Called by the Trainer when it has written a checkpoint."""
        if args.world_size > 1:
            # Each has a file of its own in it.
            torch.distributed.barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            for path in folder.iterdir():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            kept = self._report.state() if self._report is not None else {}
            with whole_file(folder / WHOLE) as partial:
                partial.write_text(json.dumps(kept), encoding="utf-8")
            # Not before, or none would be whole for a moment.
            best = state.best_model_checkpoint
            rotate_checkpoints(args.output_dir, self._kept, best)
        self._saved = time.monotonic()


def made_from(args: Any, training: TrainingArguments) -> dict[str, Any]:
    """All that a training's weights depend on: settings, and digests of its files.

    Args:
        args: the stage's arguments; strings in it that name files or folders are these.
        training: transformers' settings.
    """
    facts = {"dense_hn": __version__, "processes": training.world_size}
    for name, value in training.to_dict().items():
        if not name.startswith(APART):
            facts[name] = value
    for name, value in asdict(args).items():
        if name == "index_output":
            continue
        values = value if isinstance(value, list) else [value]
        known = [_known(one) if isinstance(one, str) else one for one in values]
        facts[name] = known if isinstance(value, list) else known[0]
    # As it is read back.
    return json.loads(json.dumps(facts, default=str))


def last(folder: Path, made_from: Mapping[str, Any]) -> str | None:
    """The checkpoint that a training goes on from; None where there is none.

    Args:
        folder: of the Trainer's own files.
        made_from: what :func:`made_from` says of this training.

    Raises:
        DenseHNError: there are checkpoints of another training.
    """
    whole = {
        int(path.name.removeprefix("checkpoint-")): path
        for path in folder.glob("checkpoint-*")
        if (path / WHOLE).is_file()
    }
    if not whole:
        return None
    path = folder / MADE_FROM
    found = read_object(path, "what it was made from") if path.is_file() else {}
    other = [
        name
        for name in dict.fromkeys([*made_from, *found])
        if made_from.get(name) != found.get(name)
    ]
    if other:
        raise DenseHNError(
            f"{folder}: holds checkpoints of a training that was stopped, with another "
            f"{', '.join(other[:5])}; give it what that one had to go on with it, or "
            "remove the folder to start anew"
        )
    step = max(whole)
    log.info("%s: goes on after step %d", whole[step], step)
    return str(whole[step])


def require(checkpoint: Path) -> None:
    """Check that a training can go on from there.

    Raises:
        DenseHNError: it is no checkpoint of the Trainer's.
    """
    if not (checkpoint / TRAINER_STATE_NAME).is_file():
        raise DenseHNError(
            f"--resume_from_checkpoint: {checkpoint} is no checkpoint: it has no "
            f"{TRAINER_STATE_NAME}; name a folder checkpoint-STEP, or leave it out to go on "
            "from this training's last one"
        )


def start(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Empty a folder, and let what will be in it be known as this training's."""
    shutil.rmtree(folder, ignore_errors=True)
    with whole_file(folder / MADE_FROM) as partial:
        partial.write_text(json.dumps(made_from, indent=2), encoding="utf-8")


def _known(word: str) -> str:
    """What a file or folder is known by; the word itself where it is none."""
    path = Path(word)
    if path.is_dir():
        # A vectors folder, which may be large, says itself what is in it.
        said = (path / MATRIX).is_file() and (path / MANIFEST).is_file()
        inside = [path / MANIFEST] if said else path.rglob("*")
        # A model card is written again with every table.
        files = sorted(one for one in inside if one.is_file() and one.name != CARD)
        return _digest(
            *(str(one.relative_to(path)) + _known(str(one)) for one in files)
        )
    if not path.is_file():
        return word
    with open(path, "rb") as file:
        start = hashlib.sha256(file.read(START)).hexdigest()
    return _digest(start, str(path.stat().st_size))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
