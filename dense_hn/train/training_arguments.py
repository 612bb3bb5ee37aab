"""transformers.TrainingArguments as the training stages take them."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from dense_hn import DenseHNError, files
from dense_hn.encoder_settings import FILE
from dense_hn.pretrained import require_apart

log = logging.getLogger("dense_hn")

# Settings of transformers that need what there is not here: lengths of single texts, a loss
# and an embedding layer of the Trainer's.
ALLOWED = {
    "train_sampling_strategy": ("random", "sequential"),
    "label_smoothing_factor": (0,),
    "neftune_noise_alpha": (None,),
}
# The lowest values; None, where it may be, is the default.
LEAST = {
    "per_device_train_batch_size": 1,
    "save_total_limit": 1,
    "save_minutes": 0,
    "gradient_cache": 0,
}
# What would spoil a training without a word.
REFUSED = {
    "save_only_model": "no training could go on from such checkpoints",
    "dataloader_persistent_workers": "such workers would draw the first epoch's negatives "
    "in every epoch",
}


@dataclass
class DenseTrainingArguments(TrainingArguments):
    """transformers.TrainingArguments with defaults that suit these stages.

    ``output_dir`` is the encoder folder to write when it is given, and kept as
    ``encoder_dir``; the Trainer's own files (checkpoints, logs) go to ``.NAME.training``
    beside it until the encoder is whole.
    """

    output_dir: str = field(
        default="", metadata={"help": "Encoder folder to write when training ends."}
    )
    encoder_dir: str = field(init=False, default="")
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Leave as it is: batches are nested."}
    )
    report_to: str = field(
        default="none",
        metadata={"help": "none, tensorboard (into NAME.tensorboard), wandb, …"},
    )
    save_strategy: str = field(
        default="no", metadata={"help": "When to save checkpoints: no, steps, epoch."}
    )
    save_minutes: float = field(
        default=10,
        metadata={
            "help": "Minutes between checkpoints, from the last of which the same command "
            "goes on when it was stopped; they are removed at the end. 0: none but those "
            "of save_strategy."
        },
    )
    save_total_limit: int | None = field(
        default=1, metadata={"help": "Checkpoints that are kept meanwhile."}
    )
    logging_steps: float = field(
        default=20, metadata={"help": "Steps between two lines of the loss."}
    )
    dataloader_pin_memory: bool = field(
        default=torch.cuda.is_available(), metadata={"help": "Only helps a GPU."}
    )
    optim: str = field(
        default=TrainingArguments.default_optim,
        metadata={
            "help": "lamb (You et al. 2020, arXiv 1904.00962), or one of transformers'.",
            "choices": ["lamb", *(name.value for name in OptimizerNames)],
        },
    )
    load_best_model_at_end: bool = field(
        default=True,
        metadata={
            "help": "With eval_strategy: keep the weights of the best evaluation; False: "
            "those of the last step."
        },
    )
    # Checkpoints that are kept: save_total_limit, which the Trainer would go by too early.
    kept: int = field(init=False, default=1)
    restore_callback_states_from_checkpoint: bool = field(
        default=True,
        metadata={"help": "Leave as it is: early stopping goes on counting."},
    )
    ddp_broadcast_buffers: bool = field(
        default=False,
        metadata={
            "help": "Leave as it is: buffers are the same in all processes, and queries and "
            "passages go through the layers before the gradients come back."
        },
    )
    # What torch_compile_backend said.
    compiled_by: str | None = field(init=False, default=None)
    gradient_cache: int = field(
        default=0,
        metadata={
            "help": "Texts that go through the encoder at once, whose activations are "
            "computed again in the backward pass, so that memory holds no more than "
            "theirs and the vectors of the batch (Gao et al. 2021, arXiv 2101.06983). "
            "0: off."
        },
    )

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise DenseHNError("--output_dir is missing: where shall the encoder go?")
        folder = Path(self.output_dir)
        self.encoder_dir = str(folder)
        self.output_dir = str(folder.with_name(f".{folder.name}.training"))
        self._require_possible()
        if 1 <= self.max_steps <= self.warmup_steps:
            log.warning(
                "%s: warmup_steps is %g: all of the %d steps are warm-up, and the learning "
                "rate is never reached; lower it",
                folder.name,
                self.warmup_steps,
                self.max_steps,
            )
        self.kept, self.save_total_limit = self.save_total_limit or 1, None
        evaluating = self.eval_strategy != "no"
        self.load_best_model_at_end &= evaluating
        if evaluating:
            self.eval_steps = self.eval_steps or self.logging_steps
            self.greater_is_better = True
        if self.load_best_model_at_end:
            # The best checkpoint is the one to keep, so there must be one each time.
            self.save_strategy, self.save_steps = self.eval_strategy, self.eval_steps
        # transformers turns TF32 on where it compiles; scores would be of three digits.
        self.tf32 = bool(self.tf32)
        # TrainingArguments refuses an optimizer that is not its own.
        lamb = self.optim == "lamb"
        if lamb:
            self.optim = self.default_optim
        super().__post_init__()
        if lamb:
            self.optim = "lamb"
        # transformers would wrap the encoder in DataParallel, which cannot divide slices.
        if self._n_gpu > 1:
            log.warning(
                "%d GPUs are here and one is used; start with `torchrun "
                "--nproc_per_node %d -m dense_hn.train …` to use all",
                self._n_gpu,
                self._n_gpu,
            )
            self._n_gpu = 1
        # accelerate would compile the encoder whole, anew for each number of slices; fit
        # compiles the model in it.
        self.compiled_by, self.torch_compile_backend = self.torch_compile_backend, None

    def _require_possible(self) -> None:
        """Refuse values out of range, and settings of other trainings than these."""
        for name, allowed in ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise DenseHNError(
                    f"--{name} {getattr(self, name)} is of other trainings than these; "
                    "leave it out"
                )
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                off = " (off)" if least == 0 else ""
                raise DenseHNError(f"--{name} is {value}; it starts at {least}{off}")
        if self.num_train_epochs <= 0 and self.max_steps < 0:
            raise DenseHNError(
                f"--num_train_epochs is {self.num_train_epochs}; it is above 0"
            )
        if self.max_steps == 0:
            raise DenseHNError(
                "--max_steps is 0: give a number of steps, or leave it out"
            )
        for name, reason in REFUSED.items():
            if getattr(self, name):
                raise DenseHNError(f"--{name}: {reason}; leave it out")

    def whole_batch(self) -> int:
        """Queries, or positives, of a batch, which all processes see."""
        return self.per_device_train_batch_size * self.world_size

    def require_a_batch(self, total: int) -> None:
        """Refuse to drop batches that are not whole where no other would be left.

        Args:
            total: of what batches are made: queries, or positives that share theirs.
        """
        batch = self.whole_batch()
        if self.dataloader_drop_last and total < batch:
            raise DenseHNError(
                f"--dataloader_drop_last: a batch is of {batch}, there are {total}, and "
                "nothing would be left; leave it out, or take a smaller batch"
            )

    def require_replaceable(self, source: str, holds: str = FILE) -> None:
        """Refuse an output folder with other things in it, before the training.

        Args:
            source: the encoder that is trained, which must not be replaced.
            holds: the file that a folder of its kind is known by.
        """
        files.require_replaceable(self.encoder_dir, holds, also="*")
        require_apart(source, self.encoder_dir)
