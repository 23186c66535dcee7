"""The training loop: optimizer steps over the rows until the run is done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback

from edge.train.data.collator import Collator, TrainingCollator
from edge.train.data.sampler import BatchPartition, ResumableBatchSampler, training_rows
from edge.train.device import padding_multiple
from edge.train.distributed import SINGLE_PROCESS
from edge.train.events import Event
from edge.train.loop.averaging import WeightAverage
from edge.train.loop.callback import TrainingCallback
from edge.train.loop.divergence import DivergenceDetector
from edge.train.loop.evaluation import PeriodicEvaluation
from edge.train.loop.hf_trainer import (
    UNLIMITED_STEPS,
    CustomTrainer,
    TrainerParts,
    trainer_arguments,
)
from edge.train.loop.memory_retry import MemoryRetry
from edge.train.loop.progress import ProgressReporter
from edge.train.loop.schedule import TrainingSchedule
from edge.train.loop.snapshots import EpochSnapshots
from edge.train.loop.training_state import TrainingState
from edge.train.model.label_loss import LabelLoss

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from transformers import PreTrainedModel

    from edge.train.checkpoint.manager import CheckpointManager
    from edge.train.checkpoint.state import SavedState
    from edge.train.config import RunConfig
    from edge.train.data.bucketing import Padding
    from edge.train.data.sampler import Augmentation, EpochDataset, LengthGroupedBatchSampler
    from edge.train.device import DeviceConfig
    from edge.train.distributed import Processes
    from edge.train.events import OnEvent
    from edge.train.loop.evaluation import Evaluate
    from edge.train.model.loading import Trainable


@dataclass(frozen=True)
class LoopResult:
    """The outcome of the training loop.

    Attributes:
        steps: Optimizer steps.
        rows: Rows trained on, counted once per epoch.
        epochs: Not necessarily a whole number.
        seconds: Training proper, without preparation and final evaluation.
        loss: Smoothed loss at the end, in nats per label.
        tokens: Tokens of inputs and targets trained on.
        padding_waste: Padding as a fraction of all computed positions, 0 to 1.
        padding: What grouping rows by length was planned to save.
        micro_batches: Passes in which a batch is computed; more than 1 if memory ran out.
    """

    steps: int
    rows: int
    epochs: float
    seconds: float
    loss: float
    tokens: int
    padding_waste: float
    padding: Padding
    micro_batches: int


@dataclass(frozen=True)
class LoopContext:
    """What the loop evaluates, saves and reports with.

    `save_snapshot` writes the model as it is under the given name.
    """

    checkpoints: CheckpointManager
    evaluate: Evaluate
    save_snapshot: Callable[[str], None]
    on_event: OnEvent
    teacher: PreTrainedModel | None = None
    processes: Processes = SINGLE_PROCESS


def run_loop(
    config: RunConfig,
    device_config: DeviceConfig,
    trainable: Trainable,
    rows: Dataset,
    augmentation: Augmentation | None,
    work_dir: Path,
    context: LoopContext,
    checkpoint: SavedState | None = None,
) -> LoopResult:
    """Train `trainable.model` in place on tokenized rows, from `checkpoint` if there is one.

    Raises:
        EdgeError: Training diverged, or a single row does not fit in memory.
        StoppedError: A signal asked to stop; a checkpoint is written.
    """
    # A list: reading a row from an Arrow table takes longer than training on it.
    dataset, batches = training_rows(
        [dict(row) for row in rows], trainable.tokenizer, config, augmentation
    )
    context.on_event(Event("note", str(batches.padding)))
    steps_per_epoch = len(batches) / config.gradient_accumulation
    steps = None
    if math.isfinite(config.epochs):
        steps = max(1, math.ceil(steps_per_epoch * config.epochs))
    schedule = TrainingSchedule(steps, config.time_limit, config.warmup_ratio, config.schedule)
    collator = TrainingCollator(
        trainable.model,
        Collator(trainable.tokenizer, multiple=padding_multiple(device_config.device)),
    )
    state = _new_state(
        config, device_config, trainable, schedule, collator, steps_per_epoch, context
    )
    callback = TrainingCallback(config, state, context.checkpoints, context.on_event)
    if checkpoint is not None:
        callback.resume_from(checkpoint, batches.max_batch_rows)
        context.on_event(Event("resumed", step=checkpoint.step))
    with callback.stop:
        if checkpoint is not None and steps is not None and checkpoint.step >= steps:
            callback.load_finished(checkpoint)
        else:
            retry = MemoryRetry(config, state, callback, batches.max_batch_rows, context.on_event)
            attempt = _Attempt(
                config, device_config, state, callback, dataset, batches, work_dir, context.teacher
            )
            retry.run(attempt.train)
        callback.finish()
    return LoopResult(
        steps=state.step,
        rows=collator.rows,
        epochs=state.step / steps_per_epoch,
        seconds=max(callback.seconds, 1e-6),
        loss=state.reporter.mean_loss,
        tokens=collator.tokens,
        padding_waste=collator.padding_waste,
        padding=batches.padding,
        micro_batches=state.micro_batches,
    )


def _new_state(
    config: RunConfig,
    device_config: DeviceConfig,
    trainable: Trainable,
    schedule: TrainingSchedule,
    collator: TrainingCollator,
    steps_per_epoch: float,
    context: LoopContext,
) -> TrainingState:
    model, on_event = trainable.model, context.on_event
    return TrainingState(
        model=model,
        average=WeightAverage(model, ratio=config.ema_ratio, decay=config.ema_decay),
        schedule=schedule,
        collator=collator,
        reporter=ProgressReporter(
            schedule,
            collator,
            DivergenceDetector(model, model.config.vocab_size, device_config.precision),
            on_event,
            context.processes,
            checks_every_loss=device_config.device == "cpu",
        ),
        evaluation=PeriodicEvaluation(config, steps_per_epoch, context.evaluate, on_event),
        snapshots=EpochSnapshots(config.snapshot_epochs, steps_per_epoch, context.save_snapshot),
        processes=context.processes,
    )


@dataclass(frozen=True)
class _Attempt:
    """Training with one Trainer, from the current step to the end or until memory runs out."""

    config: RunConfig
    device_config: DeviceConfig
    state: TrainingState
    callback: TrainingCallback
    dataset: EpochDataset
    batches: LengthGroupedBatchSampler
    work_dir: Path
    teacher: PreTrainedModel | None

    def train(self) -> None:
        config, state = self.config, self.state
        accumulated = config.gradient_accumulation
        steps = state.schedule.steps
        sampler = ResumableBatchSampler(
            self.batches,
            (steps or UNLIMITED_STEPS) * accumulated,
            state.step * accumulated,
            BatchPartition(state.processes.rank, state.processes.world_size, state.micro_batches),
        )
        # A separate generator: the loader must not advance the global one.
        loader: DataLoader[object] = DataLoader(
            self.dataset,
            batch_sampler=sampler,
            collate_fn=state.collator,
            generator=torch.Generator(),
            num_workers=0,  # workers deadlock on macOS with Python 3.12
        )
        loss = LabelLoss(
            config.label_smoothing, self.teacher, config.distill_ratio, config.tagging_weight
        )
        trainer = CustomTrainer(
            model=state.model,
            args=trainer_arguments(
                config, self.device_config, steps, state.micro_batches, self.work_dir
            ),
            data_collator=state.collator,
            callbacks=[self.callback],
            compute_loss_func=loss,
        )
        trainer.use(
            TrainerParts(loader, state.schedule, self.device_config, loss, state.reporter.add_loss)
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if config.gradient_checkpointing:
            state.model.gradient_checkpointing_disable()
