"""The training loop, and how it is taken up again in smaller passes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback

from edge.runtime.errors import EdgeError
from edge.train.data import Collator
from edge.train.data.collator import TrainingCollator
from edge.train.data.sampler import BatchPartition, ResumableBatchSampler, training_rows
from edge.train.distributed import ALONE
from edge.train.events import Event
from edge.train.loop.callback import TrainingCallback
from edge.train.loop.hf_trainer import ENDLESS, PlannedTrainer, trainer_arguments
from edge.train.loop.schedule import TrainingSchedule
from edge.train.model.distillation import LabelLoss

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from transformers import PreTrainedModel

    from edge.train.checkpoint.manager import CheckpointManager
    from edge.train.checkpoint.state import SavedState
    from edge.train.config import TrainConfig
    from edge.train.data.bucketing import Padding
    from edge.train.data.sampler import Augmentation, EpochDataset, LengthGroupedBatchSampler
    from edge.train.device import DeviceConfig
    from edge.train.distributed import Processes
    from edge.train.events import OnEvent
    from edge.train.loop.callback import Evaluate
    from edge.train.model.loading import Trainable


@dataclass(frozen=True)
class LoopResult:
    """What the loop did; `loss` is the mean over the last reports, in nats per label.

    `tokens` are those of inputs and targets that were trained on, `padding_waste` the share of
    padding among what was computed; `padding` is what batches by length were planned to save.
    """

    steps: int
    rows: int
    epochs: float
    seconds: float
    loss: float
    tokens: int
    padding_waste: float
    padding: Padding
    parts: int  # in which a batch is computed, one after the other, since it was too big for memory


@dataclass(frozen=True)
class LoopContext:
    """What the loop is given to evaluate, keep and tell with."""

    keeper: CheckpointManager
    evaluate: Evaluate
    snapshot: Callable[[str], None]
    on_event: OnEvent
    teacher: PreTrainedModel | None = None
    processes: Processes = ALONE


def run_loop(
    config: TrainConfig,
    machine: DeviceConfig,
    trainable: Trainable,
    rows: Dataset,
    augmentation: Augmentation | None,
    workplace: Path,
    around: LoopContext,
    checkpoint: SavedState | None = None,
) -> LoopResult:
    """Train `trainable.model` in place on tokenized rows, from `checkpoint` on if there is one.

    `config` is resolved.

    Raises:
        EdgeError: training diverged, or a single row is too big for memory.
        StoppedError: a signal asked to stop; a checkpoint is written.
    """
    assert config.epochs is not None
    assert config.warmup_ratio is not None
    # A list of dicts: reading one row out of an Arrow table takes longer than a row trains.
    dataset, batches = training_rows(
        [dict(row) for row in rows], trainable.tokenizer, config, augmentation
    )
    around.on_event(Event("note", str(batches.padding)))
    collate = TrainingCollator(trainable.model, Collator(trainable.tokenizer))
    steps_per_epoch = len(batches) / config.gradient_accumulation
    steps = None
    if math.isfinite(config.epochs):
        steps = max(1, math.ceil(steps_per_epoch * config.epochs))
    minutes = config.max_minutes
    plan = TrainingSchedule(
        steps, None if minutes is None else minutes * 60, config.warmup_ratio, config.schedule
    )
    watcher = TrainingCallback(
        config,
        machine,
        plan,
        trainable,
        collate,
        around.keeper,
        around.evaluate,
        steps_per_epoch,
        around.on_event,
        around.processes,
    )
    watcher.snapshot_with(around.snapshot)
    done = 0 if checkpoint is None else checkpoint.step
    if checkpoint is not None:
        watcher.resume_from(checkpoint)
        around.on_event(Event("resumed", step=done))
    with watcher.stop:
        if checkpoint is not None and steps is not None and done >= steps:
            watcher.restore_finished(checkpoint)
        else:
            run = _Attempts(
                config, machine, trainable, plan, watcher, dataset, batches, collate, steps,
                workplace, around,
            )  # fmt: skip
            run.until_done()
        watcher.finish()
    return LoopResult(
        steps=watcher.step,
        rows=collate.rows,
        epochs=watcher.step / steps_per_epoch,
        seconds=max(watcher.seconds, 1e-6),
        loss=watcher.mean_loss,
        tokens=collate.tokens,
        padding_waste=collate.padding_waste,
        padding=batches.padding,
        parts=watcher.parts,
    )


@dataclass(frozen=True)
class _Attempts:
    """The training, taken up again in smaller passes where a batch was too big for memory.

    accelerate's finder tells such an error from others and frees what the attempt has left. Its
    batch size is the rows of a pass; a step learns from the same rows in any case.
    """

    config: TrainConfig
    machine: DeviceConfig
    trainable: Trainable
    plan: TrainingSchedule
    watcher: TrainingCallback
    dataset: EpochDataset
    batches: LengthGroupedBatchSampler
    collate: TrainingCollator
    steps: int | None
    workplace: Path
    around: LoopContext

    def until_done(self) -> None:
        from accelerate.utils import find_executable_batch_size

        find_executable_batch_size(
            lambda rows: self._train(),
            starting_batch_size=self._rows_at_once(),
            reduce_batch_size_fn=self._halve,
        )()

    def _rows_at_once(self) -> int:
        return -(-self.batches.max_batch_rows // (self.watcher.parts * self.around.processes.count))

    def _halve(self) -> int:
        """
        Raises:
            EdgeError: there is nothing to halve, or it can't be done here.
        """
        watcher, rows = self.watcher, self._rows_at_once()
        if not watcher.has_begun:
            if self.around.processes.count > 1:
                raise EdgeError(
                    f"a batch of {rows} rows a process is too big for memory; several processes"
                    " can't halve it by themselves: give a lower --batch-size or --tokens-per-step"
                    " and more --gradient-accumulation"
                )
            raise EdgeError("the model alone is too big for memory: choose a smaller one")
        if rows == 1:
            raise EdgeError(
                f"step {watcher.step + 1} is too big for memory even row by row: lower"
                " --max-source-length, or see --preset low-memory"
            )
        self.trainable.model.zero_grad(set_to_none=True)
        watcher.back_to_last_step()
        watcher.parts *= 2
        fewer = self._rows_at_once()
        message = (
            f"a batch of {rows} rows was too big for memory at step {watcher.step + 1}: from here"
            f" on it is halved to {fewer} rows at a time, with twice the gradient accumulation"
            f" ({self.config.gradient_accumulation * watcher.parts}); what a step learns from stays"
            " the same"
        )
        self.around.on_event(Event("warning", message))
        return fewer

    def _train(self) -> None:
        config, watcher, processes = self.config, self.watcher, self.around.processes
        accumulated = config.gradient_accumulation
        chained = ResumableBatchSampler(
            self.batches,
            (self.steps or ENDLESS) * accumulated,
            watcher.step * accumulated,
            BatchPartition(processes.rank, processes.count, watcher.parts),
        )
        # A generator of its own: starting the loader must not use up the model's chance.
        loader = DataLoader(
            self.dataset,
            batch_sampler=chained,
            collate_fn=self.collate,
            generator=torch.Generator(),
        )
        loss = LabelLoss(config.label_smoothing, self.around.teacher, config.distill_ratio)
        trainer = PlannedTrainer(
            model=self.trainable.model,
            args=trainer_arguments(config, self.machine, self.steps, watcher.parts, self.workplace),
            data_collator=self.collate,
            callbacks=[watcher],
            compute_loss_func=loss,
        )
        trainer.prepare_ours(self.plan, loader, self.machine, watcher, loss)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if config.gradient_checkpointing:
            self.trainable.model.gradient_checkpointing_disable()
