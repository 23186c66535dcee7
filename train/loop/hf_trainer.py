"""transformers' Seq2SeqTrainer, told what to do differently."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from edge.train.config import TrainConfig
    from edge.train.device import DeviceConfig
    from edge.train.loop.callback import TrainingCallback
    from edge.train.loop.schedule import TrainingSchedule
    from edge.train.model.distillation import LabelLoss

ENDLESS = 10**9  # steps of a run that is planned by time: the watcher ends it
_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adafactor": "adafactor",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
}


def trainer_arguments(
    config: TrainConfig, machine: DeviceConfig, steps: int | None, parts: int, workplace: Path
) -> Seq2SeqTrainingArguments:
    assert config.learning_rate is not None
    assert config.adam_beta2 is not None
    optimizer = _OPTIMIZERS[config.optimizer]
    if machine.device == "mps" and config.optimizer == "adamw":
        optimizer = "adamw_torch"  # fused is missing there
    return Seq2SeqTrainingArguments(
        output_dir=str(workplace / "trainer"),
        max_steps=steps or ENDLESS,
        gradient_accumulation_steps=config.gradient_accumulation * parts,
        average_tokens_across_devices=True,  # a step's labels are counted over all processes
        ddp_find_unused_parameters=False,
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


class PlannedTrainer(Seq2SeqTrainer):
    """With a dataloader, a schedule and an autocast of ours."""

    def prepare_ours(
        self,
        plan: TrainingSchedule,
        loader: DataLoader,
        machine: DeviceConfig,
        watcher: TrainingCallback,
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
