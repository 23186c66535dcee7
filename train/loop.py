"""The training loop: transformers' Seq2SeqTrainer, told what to do differently."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments

from edge.train.collator import TrainingCollator
from edge.train.data import Collator
from edge.train.distil import LabelLoss
from edge.train.epochs import ChainedBatches, training_rows
from edge.train.events import Event
from edge.train.schedule import Plan
from edge.train.watch import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from transformers import PreTrainedModel

    from edge.train.augment import Renamer
    from edge.train.batches import Padding
    from edge.train.checkpoint import Checkpoint
    from edge.train.config import TrainConfig
    from edge.train.device import Machine
    from edge.train.events import OnEvent
    from edge.train.keeper import Keeper
    from edge.train.models import Trainable
    from edge.train.watch import Evaluate

_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adafactor": "adafactor",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
}


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


@dataclass(frozen=True)
class Around:
    """What the loop is given to evaluate, keep and tell with."""

    keeper: Keeper
    evaluate: Evaluate
    snapshot: Callable[[str], Path]
    on_event: OnEvent
    teacher: PreTrainedModel | None = None


def run_loop(
    config: TrainConfig,
    machine: Machine,
    trainable: Trainable,
    rows: Dataset,
    renamer: Renamer | None,
    workplace: Path,
    around: Around,
    checkpoint: Checkpoint | None = None,
) -> LoopResult:
    """Train `trainable.model` in place on tokenised rows, from `checkpoint` on if there is one.

    `config` is resolved.

    Raises:
        EdgeError: training diverged.
        StoppedError: a signal asked to stop; a checkpoint is written.
    """
    assert config.epochs is not None
    assert config.warmup_share is not None
    # A list of dicts: reading one row out of an Arrow table takes longer than a row trains.
    dataset, batches = training_rows(
        [dict(row) for row in rows], trainable.tokenizer, config, renamer
    )
    around.on_event(Event("note", str(batches.padding)))
    collate = TrainingCollator(trainable, Collator(trainable.tokenizer))
    steps_per_epoch = len(batches) / config.gradient_accumulation
    steps = None
    if math.isfinite(config.epochs):
        steps = max(1, math.ceil(steps_per_epoch * config.epochs))
    minutes = config.max_minutes
    plan = Plan(
        steps, None if minutes is None else minutes * 60, config.warmup_share, config.schedule
    )
    watcher = Watcher(
        config,
        machine,
        plan,
        trainable,
        collate,
        around.keeper,
        around.evaluate,
        steps_per_epoch,
        around.on_event,
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
            chained = ChainedBatches(
                batches,
                (steps or _ENDLESS) * config.gradient_accumulation,
                done * config.gradient_accumulation,
            )
            # A generator of its own: starting the loader must not use up the model's chance.
            loader = DataLoader(
                dataset,
                batch_sampler=chained,
                collate_fn=collate,
                generator=torch.Generator(),
            )
            _train(
                config,
                machine,
                trainable,
                plan,
                watcher,
                loader,
                steps,
                workplace,
                around.teacher,
            )
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
    )


_ENDLESS = 10**9  # steps of a run that is planned by time: the watcher ends it


def _train(
    config: TrainConfig,
    machine: Machine,
    trainable: Trainable,
    plan: Plan,
    watcher: Watcher,
    loader: DataLoader,
    steps: int | None,
    workplace: Path,
    teacher: PreTrainedModel | None,
) -> None:
    loss = LabelLoss(config.label_smoothing, teacher, config.distil_share)
    trainer = _Trainer(
        model=trainable.model,
        args=_arguments(config, machine, steps, workplace),
        data_collator=loader.collate_fn,
        callbacks=[watcher],
        compute_loss_func=loss,
    )
    trainer.prepare_ours(plan, loader, machine, watcher, loss)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    if config.gradient_checkpointing:
        trainable.model.gradient_checkpointing_disable()


def _arguments(
    config: TrainConfig, machine: Machine, steps: int | None, workplace: Path
) -> Seq2SeqTrainingArguments:
    assert config.learning_rate is not None
    assert config.adam_beta2 is not None
    optimizer = _OPTIMIZERS[config.optimizer]
    if machine.device == "mps" and config.optimizer == "adamw":
        optimizer = "adamw_torch"  # fused is missing there
    return Seq2SeqTrainingArguments(
        output_dir=str(workplace / "trainer"),
        max_steps=steps or _ENDLESS,
        gradient_accumulation_steps=config.gradient_accumulation,
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        optim=optimizer,
        seed=config.seed,
        use_cpu=machine.device == "cpu",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class _Trainer(Seq2SeqTrainer):
    """With a dataloader, a schedule and an autocast of ours."""

    def prepare_ours(
        self,
        plan: Plan,
        loader: DataLoader,
        machine: Machine,
        watcher: Watcher,
        loss: LabelLoss,
    ) -> None:
        self._plan, self._loader, self._machine = plan, loader, machine
        self._watcher, self._loss = watcher, loss

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._loss.prepare(inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)

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
        self._watcher.add_loss(loss)
        return loss
