"""What the training stages share around transformers.Trainer."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch
from torch.utils.data import Dataset
from transformers import HfArgumentParser, Trainer, TrainerCallback, TrainingArguments

from dense_hn import DenseHNError
from dense_hn.encoder import DenseEncoder


@dataclass
class DenseTrainingArguments(TrainingArguments):
    """transformers.TrainingArguments with defaults that suit these stages."""

    output_dir: str = field(
        default=None, metadata={"help": "Encoder folder to write when training ends."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Leave as it is: batches are nested."}
    )
    report_to: str = field(
        default="none", metadata={"help": "none, tensorboard, wandb, …"}
    )
    save_strategy: str = field(
        default="no", metadata={"help": "When to save checkpoints: no, steps, epoch."}
    )
    logging_steps: float = field(
        default=20, metadata={"help": "Steps between two lines of the loss."}
    )
    dataloader_pin_memory: bool = field(
        default=torch.cuda.is_available(), metadata={"help": "Only helps a GPU."}
    )

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise DenseHNError("--output_dir is missing: where shall the encoder go?")
        super().__post_init__()


class ArgumentParser(HfArgumentParser):
    """HfArgumentParser whose complaints are ours."""

    def error(self, message: str) -> NoReturn:
        """Raise argparse's message as a DenseHNError."""
        raise DenseHNError(f"{self.prog}: {message}")


class TellEpoch(TrainerCallback):
    """Tells a dataset which epoch begins, so that its draws depend on it.

    Set here because accelerate passes the epoch on to a dataset only where its sampler
    does not take it.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer before it makes the epoch's iterator."""
        self._dataset.epoch = int(state.epoch or 0)


def fit(trainer: Trainer, encoder: DenseEncoder) -> None:
    """Train, and save the encoder under the arguments' ``output_dir``.

    The Trainer's own files (checkpoints, logs) stay in a folder beside it,
    ``.NAME.training``, until the encoder is whole.
    """
    folder = Path(trainer.args.output_dir)
    state = folder.with_name(f".{folder.name}.training")
    trainer.args.output_dir = str(state)
    trainer.train()
    encoder.save(folder)
    shutil.rmtree(state, ignore_errors=True)
