"""transformers' Seq2SeqTrainer with another data loader, schedule, autocast and loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from edge.train.device import keeps_memory_per_shape

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from edge.train.config import RunConfig
    from edge.train.device import DeviceConfig
    from edge.train.loop.schedule import TrainingSchedule
    from edge.train.model.label_loss import LabelLoss

UNLIMITED_STEPS = 10**9  # of a run that only a time limit ends
_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adafactor": "adafactor",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
}


def trainer_arguments(
    config: RunConfig,
    device_config: DeviceConfig,
    steps: int | None,
    micro_batches: int,
    work_dir: Path,
) -> Seq2SeqTrainingArguments:
    """The Trainer's arguments; it neither saves, evaluates nor logs, which the callback does."""
    return Seq2SeqTrainingArguments(
        output_dir=str(work_dir / "trainer"),
        max_steps=steps or UNLIMITED_STEPS,
        gradient_accumulation_steps=config.gradient_accumulation * micro_batches,
        average_tokens_across_devices=True,  # counts a step's labels over all processes
        ddp_find_unused_parameters=False,
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        optim=_OPTIMIZERS[config.optimizer],
        torch_empty_cache_steps=1 if keeps_memory_per_shape(device_config.device) else None,
        seed=config.seed,
        use_cpu=device_config.device == "cpu",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


@dataclass(frozen=True)
class TrainerParts:
    """What `CustomTrainer` uses instead of the Trainer's own parts.

    `on_loss` is called with the loss of each micro-batch.
    """

    loader: DataLoader[Any]
    schedule: TrainingSchedule
    device_config: DeviceConfig
    loss: LabelLoss
    on_loss: Callable[[torch.Tensor], None]


class CustomTrainer(Seq2SeqTrainer):
    """A Seq2SeqTrainer with the parts of `use`, which must be called before `train`."""

    def use(self, parts: TrainerParts) -> None:
        """Set the parts."""
        self._parts = parts

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Overridden: the loss may run a teacher on the inputs first."""
        self._parts.loss.prepare(inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Overridden: batches of similar length."""
        return self._parts.loader

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Overridden: a schedule by steps or by time."""
        if self.lr_scheduler is None:
            self.lr_scheduler: Any = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, self._parts.schedule.factor
            )
        return self.lr_scheduler

    def compute_loss_context_manager(self) -> AbstractContextManager[Any]:
        """Overridden: the Trainer's autocast stays on the model, which must evaluate in fp32."""
        device_config = self._parts.device_config
        if device_config.precision == "bf16":
            autocast: AbstractContextManager[Any] = torch.autocast(
                device_config.device, dtype=torch.bfloat16
            )
            return autocast
        return nullcontext()

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Overridden: passes the loss on."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self._parts.on_loss(loss)
        return loss
