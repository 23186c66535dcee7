"""Losses of the steps, progress events, and the check for divergence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from edge.train.events import Event

if TYPE_CHECKING:
    from edge.train.data.collator import TrainingCollator
    from edge.train.distributed import Processes
    from edge.train.events import OnEvent
    from edge.train.loop.divergence import DivergenceDetector
    from edge.train.loop.schedule import TrainingSchedule

_REPORT_STEPS = 10  # except on the CPU, reading the loss waits for the device
_SMOOTHING = 0.7  # of the reported loss


class ProgressReporter:
    """Collects the loss of each micro-batch and reports their mean every few steps."""

    def __init__(
        self,
        schedule: TrainingSchedule,
        collator: TrainingCollator,
        divergence: DivergenceDetector,
        on_event: OnEvent,
        processes: Processes,
        *,
        checks_every_loss: bool,
    ) -> None:
        self._schedule = schedule
        self._collator = collator
        self._divergence = divergence
        self._on_event = on_event
        self._processes = processes
        self._checks_every_loss = checks_every_loss
        self._losses: list[torch.Tensor] = []  # since the last report
        self._reported_step = 0
        self.mean_loss = math.nan  # smoothed, in nats per label

    def add_loss(self, loss: torch.Tensor) -> None:
        """Add the loss of one micro-batch, as its contribution to the loss of the step."""
        self._losses.append(loss)

    @property
    def loss_count(self) -> int:
        """How many losses were added since the last report."""
        return len(self._losses)

    def drop_losses_after(self, count: int) -> None:
        """Remove the losses that were added after there were `count`."""
        del self._losses[count:]

    def step_done(self, step: int, progress: float, learning_rate: float | None) -> None:
        """Report the progress if a report is due, and check the loss.

        Raises:
            EdgeError: Training diverged.
        """
        if step % _REPORT_STEPS == 0 or step == 1 or progress >= 1.0:
            self._report(step, progress, learning_rate)
        elif self._checks_every_loss and not torch.isfinite(self._losses[-1]):
            self._divergence.check(step, float(self._losses[-1]), math.nan, learning_rate)

    def _report(self, step: int, progress: float, learning_rate: float | None) -> None:
        # The Trainer has scaled each loss by the micro-batches of a step and by the world size.
        own = torch.stack(self._losses).sum().item() if self._losses else math.nan
        counts = self._collator.state_dict()
        losses, rows, tokens, padded_tokens = self._processes.all_reduce_sum(
            own, counts["rows"], counts["tokens"], counts["padded_tokens"]
        )
        loss = losses / self._processes.world_size / max(1, step - self._reported_step)
        self._losses.clear()
        self._reported_step = step
        is_first = math.isnan(self.mean_loss)
        smoothed = loss if is_first else _SMOOTHING * self.mean_loss + (1 - _SMOOTHING) * loss
        self._divergence.check(step, loss, smoothed, learning_rate)
        self.mean_loss = smoothed
        elapsed = max(self._schedule.elapsed, 1e-6)
        self._on_event(
            Event(
                "progress",
                "training",
                fraction=progress,
                step=step,
                loss=self.mean_loss,
                learning_rate=learning_rate,
                rows_per_second=rows / elapsed,
                tokens_per_second=tokens / elapsed,
                padding_waste=1.0 - tokens / padded_tokens if padded_tokens else 0.0,
                seconds_left=self._schedule.seconds_left(step),
            )
        )

    def state_dict(self) -> dict[str, Any]:
        """The losses, for a checkpoint; a collective operation of all processes."""
        own = float(torch.stack(self._losses).sum()) if self._losses else 0.0
        [losses] = self._processes.all_reduce_sum(own)
        return {
            "mean_loss": None if math.isnan(self.mean_loss) else self.mean_loss,
            "reported_step": self._reported_step,
            "loss_sum": losses / self._processes.world_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.mean_loss = math.nan if state["mean_loss"] is None else state["mean_loss"]
        self._reported_step = state["reported_step"]
        self._losses = [torch.tensor(state["loss_sum"])] if state["loss_sum"] else []
