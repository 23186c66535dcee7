"""The training loop: transformers' Seq2SeqTrainer, told what to do differently."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from edge.runtime.errors import EdgeError
from edge.train.data import IGNORED_LABEL, Collator
from edge.train.epochs import training_rows
from edge.train.events import Event
from edge.train.schedule import Plan

if TYPE_CHECKING:
    from datasets import Dataset

    from edge.train.augment import Renamer
    from edge.train.batches import Padding
    from edge.train.config import TrainConfig
    from edge.train.device import Machine
    from edge.train.events import OnEvent
    from edge.train.models import Trainable

_REPORT_EVERY = 10  # steps; reading the loss waits for the device
_SMOOTHING = 0.7  # of the loss that is shown


@dataclass(frozen=True)
class LoopResult:
    """What the loop did; `loss` is the mean over the last reports, in nats per label.

    `tokens` are those of inputs and targets that were trained on, `slots` what was computed for
    them, padding included; `padding` is what batches by length were planned to save.
    """

    steps: int
    rows: int
    epochs: float
    seconds: float
    loss: float
    tokens: int
    slots: int
    padding: Padding


def run_loop(
    config: TrainConfig,
    machine: Machine,
    trainable: Trainable,
    rows: Dataset,
    renamer: Renamer | None,
    workplace: Path,
    on_event: OnEvent,
) -> LoopResult:
    """Train `trainable.model` in place on tokenised rows; `config` is resolved.

    Raises:
        EdgeError: the loss stopped being a number.
    """
    assert config.epochs is not None
    # A list of dicts: reading one row out of an Arrow table takes longer than a row trains.
    dataset, batches = training_rows(
        [dict(row) for row in rows], trainable.tokenizer, config, renamer
    )
    on_event(Event("note", str(batches.padding)))
    collate = TrainingCollator(trainable, Collator(trainable.tokenizer))
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate)
    steps_per_epoch = -(-len(batches) // config.gradient_accumulation)
    steps = None
    if math.isfinite(config.epochs):
        steps = max(1, math.ceil(steps_per_epoch * config.epochs))
    minutes = config.max_minutes
    plan = Plan(steps, None if minutes is None else minutes * 60, config.warmup_share)
    rows_per_step = len(rows) / steps_per_epoch
    watcher = _Watcher(config, plan, trainable.model.parameters(), rows_per_step, on_event)
    trainer = _Trainer(
        model=trainable.model,
        args=_arguments(config, machine, steps, workplace),
        data_collator=collate,
        callbacks=[watcher],
        compute_loss_func=_mean_over_labels(config.label_smoothing),
    )
    trainer.prepare_ours(plan, loader, machine)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    watcher.finish()
    done = trainer.state.global_step
    seconds = max(watcher.seconds, 1e-6)
    return LoopResult(
        steps=done,
        rows=collate.rows,
        epochs=done / steps_per_epoch,
        seconds=seconds,
        loss=watcher.mean_loss,
        tokens=collate.tokens,
        slots=collate.slots,
        padding=batches.padding,
    )


def _arguments(
    config: TrainConfig, machine: Machine, steps: int | None, workplace: Path
) -> Seq2SeqTrainingArguments:
    assert config.learning_rate is not None
    assert config.adam_beta2 is not None
    return Seq2SeqTrainingArguments(
        output_dir=str(workplace / "trainer"),
        max_steps=steps or 10**9,  # planned by time: the watcher ends it
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch" if machine.device == "mps" else "adamw_torch_fused",
        seed=config.seed,
        use_cpu=machine.device == "cpu",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _mean_over_labels(smoothing: float) -> Any:
    """Cross-entropy summed over labels and divided by the labels of the whole optimiser step.

    T5 in transformers 5 averages each batch by itself and ignores the count that the Trainer gives
    it, so with gradient accumulation its loss would be too large by that factor.
    """

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        total = F.cross_entropy(
            outputs.logits.float().flatten(0, 1),
            labels.flatten(),
            ignore_index=IGNORED_LABEL,
            reduction="sum",
            label_smoothing=smoothing,
        )
        return total / (num_items_in_batch or (labels != IGNORED_LABEL).sum())

    return loss


class TrainingCollator:
    """A collator that adds decoder_input_ids (labels shifted right) and counts what it made.

    `rows`, `tokens` of inputs and targets, and `slots`, which are tokens and padding.
    """

    def __init__(self, trainable: Trainable, collate: Collator) -> None:
        self._shift: Any = trainable.model._shift_right
        self._collate = collate
        self.rows = self.tokens = self.slots = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._collate(rows)
        batch["decoder_input_ids"] = self._shift(batch["labels"])
        self.rows += len(rows)
        mask, labels = batch["attention_mask"], batch["labels"]
        self.tokens += int(mask.sum()) + int((labels != IGNORED_LABEL).sum())
        self.slots += mask.numel() + labels.numel()
        return batch


class _Trainer(Seq2SeqTrainer):
    """With a dataloader, a schedule and an autocast of ours."""

    def prepare_ours(self, plan: Plan, loader: DataLoader, machine: Machine) -> None:
        self._plan, self._loader, self._machine = plan, loader, machine

    def get_train_dataloader(self) -> DataLoader:
        return self._loader

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler: Any = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, self._plan.factor
            )
        return self.lr_scheduler

    def compute_loss_context_manager(self) -> AbstractContextManager[Any]:
        # Ours, since the Trainer's own would stay wrapped around the model and evaluate in bf16.
        if self._machine.precision == "bf16":
            return torch.autocast(self._machine.device, dtype=torch.bfloat16)
        return nullcontext()

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, _Watcher):
                callback.add_loss(loss)
        return loss


class _Watcher(TrainerCallback):
    """Ends the run in time, averages the weights of its last part, and tells how it goes."""

    def __init__(
        self,
        config: TrainConfig,
        plan: Plan,
        parameters: Iterable[torch.nn.Parameter],
        rows_per_step: float,
        on_event: OnEvent,
    ) -> None:
        assert config.ema_share is not None
        self._plan = plan
        self._on_event = on_event
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._ema_from = 1.0 - config.ema_share if config.ema_share > 0 else None
        self._ema_decay = config.ema_decay
        self._average: list[torch.Tensor] | None = None
        self._rows_per_step = rows_per_step
        self._step_losses: list[torch.Tensor] = []
        self._reported = 0
        self.mean_loss = math.nan
        self.seconds = 0.0

    def add_loss(self, loss: torch.Tensor) -> None:
        self._step_losses.append(loss)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._plan.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        progress = self._plan.progress(step)
        if self._ema_from is not None and progress >= self._ema_from:
            self._add_to_average()
        if progress >= 1.0:
            control.should_training_stop = True
        if step % _REPORT_EVERY == 0 or step == 1 or progress >= 1.0:
            self._report(step, progress, kwargs.get("lr_scheduler"))

    @torch.no_grad()
    def _add_to_average(self) -> None:
        current = [parameter.detach() for parameter in self._parameters]
        if self._average is None:
            self._average = [tensor.clone() for tensor in current]
        else:
            torch._foreach_lerp_(self._average, current, 1.0 - self._ema_decay)

    def _report(self, step: int, progress: float, scheduler: Any) -> None:
        # With gradient accumulation each loss is already a share of its step's.
        losses = torch.stack(self._step_losses).sum().item() if self._step_losses else math.nan
        loss = losses / max(1, step - self._reported)
        self._step_losses.clear()
        self._reported = step
        if not math.isfinite(loss):
            raise EdgeError(
                f"training diverged: the loss is {loss} at step {step}; try a lower --learning-rate"
            )
        first = math.isnan(self.mean_loss)
        self.mean_loss = loss if first else _SMOOTHING * self.mean_loss + (1 - _SMOOTHING) * loss
        elapsed = max(self._plan.elapsed, 1e-6)
        self._on_event(
            Event(
                "progress",
                "training",
                fraction=progress,
                step=step,
                loss=self.mean_loss,
                learning_rate=scheduler.get_last_lr()[0] if scheduler is not None else None,
                rows_per_second=step * self._rows_per_step / elapsed,
                seconds_left=self._plan.seconds_left(step),
            )
        )

    @torch.no_grad()
    def finish(self) -> None:
        """Put the averaged weights in place and stop the clock."""
        self.seconds = self._plan.elapsed
        if self._average is not None:
            for parameter, average in zip(self._parameters, self._average, strict=True):
                parameter.copy_(average)
