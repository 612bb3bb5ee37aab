"""What the training stages share around transformers.Trainer."""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.integrations import TensorBoardCallback

from dense_hn import costs, provenance
from dense_hn.cross_encoder import CrossEncoder
from dense_hn.encoder import DenseEncoder
from dense_hn.false_negatives import Filter, Report
from dense_hn.files import whole_file
from dense_hn.train import checkpoints
from dense_hn.train.checkpoints import Checkpoints
from dense_hn.train.evaluation import Evaluator
from dense_hn.train.lamb import Lamb
from dense_hn.train.telemetry import Telemetry

log = logging.getLogger("dense_hn")


class DenseTrainer(Trainer):
    """transformers.Trainer whose evaluation is retrieval for dev topics."""

    def __init__(
        self,
        *,
        evaluator: Evaluator | None = None,
        filter_: Filter | None = None,
        report: Report | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the Trainer's arguments, what measures an encoder, and what is suspicious
        among the documents of a step, with the report that it goes into."""
        # The Trainer wants to see a dataset where it is to evaluate.
        super().__init__(eval_dataset=() if evaluator else None, **kwargs)
        self._evaluator = evaluator
        self._filter = filter_
        self.report = report
        self.telemetry = Telemetry()
        # What fit counts, while it trains.
        self.spent: costs.Costs | None = None

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Called by the Trainer with what goes into the log, TensorBoard and the like.

        Beside a loss stand the means since the last one: what :attr:`telemetry` was told,
        the seconds of a step by part, and the padding. Of several processes, the first's.
        """
        if "loss" in logs:
            logs |= self.telemetry.means()
            logs |= self.spent.lately() if self.spent else {}
        super().log(logs, *args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """Called by the Trainer. Of several processes, each gets the whole batches.

        What goes through the layers is divided by the collators (:mod:`ranks`), so that a
        batch, the last one, too, is what one process would have.
        """
        ranks = self.args.world_size
        own = self._train_batch_size
        self._train_batch_size = own * ranks
        loader = super().get_train_dataloader()
        self._train_batch_size = own
        if ranks > 1:
            # As transformers does for batches that are divided elsewhere.
            loader.batch_sampler.num_processes = 1
            loader.batch_sampler.process_index = 0
            # Or the last batch would be filled up.
            loader.batch_sampler.even_batches = False
        return loader

    def _run_epoch(self, *args, **kwargs) -> None:
        """Called by the Trainer, which looks for the last step only after a step, and
        forgets of a checkpoint that early stopping had the last word."""
        stopped = any(
            one.early_stopping_patience_counter >= one.early_stopping_patience
            for one in self.callback_handler.callbacks
            if isinstance(one, EarlyStoppingCallback)
        )
        if stopped or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def get_batch_samples(self, *args, **kwargs):
        """Called by the Trainer for the next batches."""
        with costs.part("data"):
            return super().get_batch_samples(*args, **kwargs)

    def training_step(self, *args, **kwargs) -> Tensor:
        """Called by the Trainer with a batch; what compute_loss leaves is backward."""
        with costs.part("backward"):
            return super().training_step(*args, **kwargs)

    def evaluate(self, *_, metric_key_prefix: str = "eval", **__) -> dict[str, float]:
        """Called by the Trainer when it is time; logs and returns the measures."""
        with costs.part("evaluate"):
            measured = self._evaluator(self.model)
        metrics = {f"{metric_key_prefix}_{name}": v for name, v in measured.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def trusted(
        self,
        source: str,
        candidates: Tensor,
        scores: Tensor,
        best: Tensor,
        qids: Sequence[str],
        docid: Callable[[int, int], str],
        name: str = "suspected",
    ) -> Tensor:
        """[B, M] the candidates that do not look relevant; the others are reported.

        Args:
            source: where they come from, for the report.
            candidates: [B, M] True for what may be a negative.
            scores: [B, M], times the encoder's scale.
            best: [B] those of the queries' positives, times it as well.
            qids: of the B rows.
            docid: (row, column) to the document's id.
            name: of their number, in the log.
        """
        if not self._filter:
            return candidates
        scores, best = (s.detach() / self.model.settings.scale for s in (scores, best))
        found = self._filter.suspicious(scores, best[:, None]) & candidates
        self.telemetry.add(name, found.sum(dim=1))
        self.report.drop_where(source, found, qids, docid, scores, best)
        return candidates & ~found


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


class SeedByRank(TrainerCallback):
    """Of several processes, gives each a dropout of its own, once the order is drawn."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer, before a resumed training takes up its own state."""
        if args.world_size > 1:
            set_seed(args.seed + args.process_index)


class CountUpdates(TrainerCallback):
    """Counts steps, and the time of the optimiser's."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer before the weights change."""
        costs.enter("update")

    def on_optimizer_step(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer after that."""
        costs.leave()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer, before another batch."""
        costs.step()


def log_of(encoder_dir: str | Path) -> Path:
    """Where losses and evaluations of a training are, a JSON object a line."""
    return _beside(encoder_dir, "log.jsonl")


def costs_of(encoder_dir: str | Path) -> Path:
    """Where a training's costs.Costs.facts are, as JSON."""
    return _beside(encoder_dir, "costs.json")


def board_of(encoder_dir: str | Path) -> Path:
    """Where TensorBoard finds a training, while it goes on and afterwards."""
    return _beside(encoder_dir, "tensorboard")


def _beside(encoder_dir: str | Path, kind: str) -> Path:
    folder = Path(encoder_dir)
    return folder.with_name(f"{folder.name}.{kind}")


def fit(
    trainer: DenseTrainer,
    trained: DenseEncoder | CrossEncoder,
    made: Any,
    keep: Callable[[], None] | None = None,
) -> None:
    """Train, and save the encoder where the arguments say, log and costs beside it.

    Args:
        trainer: ready to train.
        trained: what it trains.
        made: the stage's arguments, by which a checkpoint is known as this training's.
        keep: saves what was trained, while the checkpoints are still there; by itself,
            the encoder in its folder.

    Raises:
        DenseHNError: there are checkpoints of another training in this one's place; what
            is to be gone on from is no checkpoint.
    """
    args = trainer.args
    folder, facts = Path(args.output_dir), checkpoints.made_from(made, args)
    given = Path(args.resume_from_checkpoint or "").resolve()
    inside = folder.resolve() in given.parents
    # One from elsewhere is where this training began; its own are newer.
    if not inside and (own := checkpoints.last(folder, facts)):
        args.resume_from_checkpoint, inside = own, True
    if args.resume_from_checkpoint:
        checkpoints.require(Path(args.resume_from_checkpoint))
        args.eval_on_start = False
    if not inside and args.process_index == 0:
        checkpoints.start(folder, facts)
    if board := trainer.pop_callback(TensorBoardCallback):
        # Its own place, where $TENSORBOARD_LOGGING_DIR names none, is in a folder that goes
        # at the end.
        ours = board_of(args.encoder_dir)
        board.logging_dir = board.logging_dir or str(ours)
        if not args.resume_from_checkpoint and args.process_index == 0:
            for events in ours.glob("events.out.tfevents.*"):
                events.unlink()
        trainer.add_callback(board)
    ours = trained.settings if isinstance(trained, DenseEncoder) else None
    if ours and ours.l2_norm and ours.scale <= 1:
        log.warning(
            "scores are cosines times %g, with which the losses hardly move; give --scale, "
            "one over the temperature, such as 20",
            ours.scale,
        )
    # Where negatives are mined anew, the Trainer has drawn another batch before.
    apart = getattr(made, "refresh_steps", 0)
    saving = Checkpoints(args.save_minutes, args.kept, trainer.report, apart)
    trainer.add_callback(saving)
    trained.gradient_cache = args.gradient_cache
    if args.torch_compile:
        backend, mode = args.compiled_by, args.torch_compile_mode
        trained.model.compile(dynamic=True, backend=backend, mode=mode)
    if args.optim == "lamb":
        betas = (args.adam_beta1, args.adam_beta2)
        settings = {"lr": args.learning_rate, "betas": betas, "eps": args.adam_epsilon}
        trainer.optimizer_cls_and_kwargs = (Lamb, settings)
    trainer.add_callback(CountUpdates())
    trainer.add_callback(SeedByRank())
    with costs.Costs() as spent:
        trainer.spent = spent
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    if trainer.is_world_process_zero():
        if keep:
            keep()
        else:
            trained.save(args.encoder_dir)
        with whole_file(log_of(args.encoder_dir)) as partial:
            lines = map(json.dumps, trainer.state.log_history)
            partial.write_text("".join(f"{line}\n" for line in lines))
        costs.write(costs_of(args.encoder_dir), spent.facts(), args.encoder_dir)
        provenance.record_folder(args.encoder_dir, facts)
        shutil.rmtree(args.output_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
