"""What is done between the steps of the loop: average, evaluate, save, stop, tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from edge.train.checkpoint.manager import Best, CheckpointManager
from edge.train.checkpoint.state import (
    InMemoryState,
    Tensors,
    WeightAverage,
    capture_model,
    capture_optimizer,
    capture_random,
    capture_random_of_all,
    capture_scheduler,
    restore_model,
    restore_optimizer,
    restore_random,
    restore_random_of,
    restore_scheduler,
)
from edge.train.distributed import ALONE
from edge.train.events import Event
from edge.train.loop.divergence import DivergenceWatch
from edge.train.loop.signals import StoppedError, StopRequest

if TYPE_CHECKING:
    from edge.train.checkpoint.state import SavedState
    from edge.train.config import TrainConfig
    from edge.train.data.collator import TrainingCollator
    from edge.train.device import DeviceConfig
    from edge.train.distributed import Processes
    from edge.train.events import OnEvent
    from edge.train.loop.schedule import TrainingSchedule
    from edge.train.model.loading import Trainable

_REPORT_EVERY = 10  # steps; off the CPU, reading the loss waits for the device
_SMOOTHING = 0.7  # of the loss that is shown

# The figures of the dev rows; False where a stop was asked for meanwhile.
Evaluate = Callable[[Callable[[], bool]], "dict[str, float] | None"]


@dataclass(frozen=True)
class _Mark:
    """How chance, counts and losses stood after a step."""

    chance: tuple[Tensors, dict[str, Any]]
    counts: dict[str, int]
    losses: int


class TrainingCallback(TrainerCallback):
    """One run's bookkeeping; its state is part of every checkpoint."""

    def __init__(
        self,
        config: TrainConfig,
        machine: DeviceConfig,
        plan: TrainingSchedule,
        trainable: Trainable,
        collate: TrainingCollator,
        keeper: CheckpointManager,
        evaluate: Evaluate,
        steps_per_epoch: float,
        on_event: OnEvent,
        processes: Processes = ALONE,
    ) -> None:
        assert config.ema_ratio is not None
        self._config = config
        self._plan = plan
        self._model = trainable.model
        self._collate = collate
        self._keeper = keeper
        self._evaluate = evaluate
        self._on_event = on_event
        self._processes = processes
        self._ema_from = 1.0 - config.ema_ratio if config.ema_ratio > 0 else math.inf
        self._average = WeightAverage(trainable.model, config.ema_decay)
        self._best = Best(config.best_metric)
        self._divergence = DivergenceWatch(
            trainable.model, trainable.model.config.vocab_size, machine.precision
        )
        self._reads_every_loss = machine.device == "cpu"
        self._eval_every = config.eval_steps
        if self._eval_every is None:
            self._eval_every = max(1, round(steps_per_epoch))
        self._snapshot_every = (config.snapshot_epochs or 0) * steps_per_epoch
        self._snapshots = 0
        self._save_snapshot: Callable[[str], None] | None = None
        self._losses: list[torch.Tensor] = []
        self._reported = 0
        self._evaluated = 0
        self._from: SavedState | None = None
        self._optimizer: Any = None
        self._scheduler: Any = None
        self._mark: _Mark | None = None
        self._asked = 0  # the signal that asks all processes to stop
        self._is_save_due = False
        self.parts = 1  # passes of a batch, since a whole one was too big for memory
        self.stop = StopRequest()
        self.mean_loss = math.nan
        self.seconds = 0.0
        self.step = 0

    def resume_from(self, state: SavedState) -> None:
        self._from = state
        self.step = state.step
        self.parts = state.plain()["watch"]["parts"]
        self._keeper.resumed(state.step)

    def snapshot_with(self, save: Callable[[str], None]) -> None:
        """`save` writes the model as it is under the name that it is given."""
        self._save_snapshot = save

    def add_loss(self, loss: torch.Tensor) -> None:
        self._losses.append(loss)

    # What the Trainer calls.

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._optimizer, self._scheduler = kwargs["optimizer"], kwargs["lr_scheduler"]
        if self._from is None:
            self._plan.start()
            if self._processes.rank:
                torch.manual_seed(self._config.seed + self._processes.rank)  # dropout of its own
        else:
            self._restore(self._from)
            self._from = None
            state.global_step = self.step
        self._agree()
        if self.step and self._is_evaluation_due():
            self._look(control)
        self._set_mark()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step = step = state.global_step
        self._agree()
        progress = self._plan.progress(step)
        if progress >= self._ema_from:
            self._average.add()
        if progress >= 1.0:
            control.should_training_stop = True
        if step % _REPORT_EVERY == 0 or step == 1 or progress >= 1.0:
            self._report(progress)
        elif self._reads_every_loss and not torch.isfinite(self._losses[-1]):
            self._divergence.check(step, float(self._losses[-1]), math.nan, self._rate())
        self._stop_if_asked()
        if self._is_evaluation_due() or (self._evaluates and control.should_training_stop):
            self._look(control)
        if self._snapshot_every and step >= (self._snapshots + 1) * self._snapshot_every:
            self._take_snapshot(step)
        if self._is_save_due:
            self._keeper.try_to_save(step, self._best, self.capture)
        self._agree()
        self._stop_if_asked()
        self._set_mark()

    def _agree(self) -> None:
        """Decide with the other processes what hangs on a clock or a signal."""
        elapsed, due = self._plan.own_elapsed, self._keeper.is_due(self.step)
        if self._processes.count > 1:
            own = (elapsed, due) if self._processes.is_main else (0.0, False)
            elapsed, due_anywhere, signal = self._processes.most(*own, self.stop.signal or 0)
            self._plan.agree(elapsed)
            self._is_save_due, self._asked = bool(due_anywhere), int(signal)
        else:
            self._is_save_due, self._asked = due, self.stop.signal or 0

    def _set_mark(self) -> None:
        """Remember where the step that begins now began, in case it must be done again."""
        if self._processes.count == 1:
            self._mark = _Mark(capture_random(), self._collate.state_dict(), len(self._losses))

    @property
    def has_begun(self) -> bool:
        return self._mark is not None

    def back_to_last_step(self) -> None:
        """Undo what a failed step has done; the next training begins with that step."""
        assert self._mark is not None
        restore_random(*self._mark.chance)
        self._collate.load_state_dict(self._mark.counts)
        del self._losses[self._mark.losses :]
        tensors, plain = self.capture()
        self._optimizer = self._scheduler = None
        self._from = InMemoryState(self.step, tensors, plain)

    def finish(self) -> None:
        """Stop the clock and put the weights in place that the run ends with."""
        self.seconds = self._plan.elapsed
        if self._keeper.saved_step or self.seconds > self._config.save_minutes * 60 > 0:
            self._keeper.try_to_save(self.step, self._best, self.capture)
        best = self._best
        if self._config.load_best and best.value is not None and best.step != self.step:
            tensors = self._keeper.open(best.step).tensors()
            restore_model(self._model, tensors)
            self._average.restore(tensors)
            message = f"the best weights are of step {best.step} ({best.metric} {best.value:.4g})"
            self._on_event(Event("note", message))
        self._average.swap()
        self._collate.load_state_dict(self._counts_of_all())

    # Evaluation and stopping.

    @property
    def _evaluates(self) -> bool:
        return bool(self._eval_every)

    def _is_evaluation_due(self) -> bool:
        return (
            bool(self._eval_every)
            and self.step % (self._eval_every or 1) == 0
            and self._evaluated != self.step
        )

    def _look(self, control: Any) -> None:
        """Evaluate the weights that would be kept: the average once there is one."""
        if self._evaluated == self.step:
            return
        self._average.swap()
        try:
            metrics = self._evaluate(lambda: bool(self.stop))
        finally:
            self._average.swap()
        if metrics is None:
            return  # asked to stop: it is made up for when the run goes on
        self._evaluated = self.step
        self._on_event(Event("eval", step=self.step, details=metrics))
        is_best = self._best.add(self.step, metrics)
        if is_best and self._config.load_best and self._plan.progress(self.step) < 1.0:
            self._keeper.try_to_save(self.step, self._best, self.capture)
        if self._config.patience and self._best.worse >= self._config.patience:
            best = self._best
            message = (
                f"stopped early at step {self.step}: {best.worse} evaluations were no better than"
                f" that of step {best.step} ({best.metric} {best.value:.4g})"
            )
            self._on_event(Event("note", message))
            control.should_training_stop = True

    def _stop_if_asked(self) -> None:
        if not self._asked:
            return
        self._keeper.save(self.step, self._best, self.capture)
        raise StoppedError(
            f"stopped at step {self.step}, all of it is saved; the same command with --resume goes"
            " on from there",
            self._asked,
        )

    def _take_snapshot(self, step: int) -> None:
        self._snapshots = int(step / self._snapshot_every)
        if self._save_snapshot is not None:
            name = f"epoch-{self._snapshots * (self._config.snapshot_epochs or 1):03d}"
            self._average.swap()
            try:
                self._save_snapshot(name)
            finally:
                self._average.swap()

    # Telling.

    def _rate(self) -> float | None:
        return None if self._scheduler is None else float(self._scheduler.get_last_lr()[0])

    def _report(self, progress: float) -> None:
        # With gradient accumulation each loss is already a share of its step's.
        # Each process's loss is already scaled by their number.
        own = torch.stack(self._losses).sum().item() if self._losses else math.nan
        counts = self._collate.state_dict()
        losses, rows, tokens, slots = self._processes.total(
            own, counts["rows"], counts["tokens"], counts["padded_tokens"]
        )
        loss = losses / self._processes.count / max(1, self.step - self._reported)
        self._losses.clear()
        self._reported = self.step
        first = math.isnan(self.mean_loss)
        smoothed = loss if first else _SMOOTHING * self.mean_loss + (1 - _SMOOTHING) * loss
        self._divergence.check(self.step, loss, smoothed, self._rate())
        self.mean_loss = smoothed
        elapsed = max(self._plan.elapsed, 1e-6)
        self._on_event(
            Event(
                "progress",
                "training",
                fraction=progress,
                step=self.step,
                loss=self.mean_loss,
                learning_rate=self._rate(),
                rows_per_second=rows / elapsed,
                tokens_per_second=tokens / elapsed,
                padding_waste=1.0 - tokens / slots if slots else 0.0,
                seconds_left=self._plan.seconds_left(self.step),
            )
        )

    # State.

    def capture(self) -> tuple[Tensors, dict[str, Any]]:
        """All that the run needs to go on as if nothing had happened."""
        moments, optimizer = capture_optimizer(self._optimizer)
        generators, random_state = capture_random_of_all(self._processes)
        own = float(torch.stack(self._losses).sum()) if self._losses else 0.0
        [losses] = self._processes.total(own)
        plain = {
            "optimizer": optimizer,
            "scheduler": capture_scheduler(self._scheduler),
            "random": random_state,
            "collator": self._counts_of_all(),
            "best": self._best.plain(),
            "watch": {
                "elapsed": self._plan.elapsed,
                "mean_loss": None if math.isnan(self.mean_loss) else self.mean_loss,
                "reported": self._reported,
                "evaluated": self._evaluated,
                "snapshots": self._snapshots,
                "losses": losses / self._processes.count,
                "parts": self.parts,
            },
        }
        average = self._average.capture()
        return {**capture_model(self._model), **moments, **generators, **average}, plain

    def _counts_of_all(self) -> dict[str, int]:
        own = self._collate.state_dict()
        return dict(zip(own, map(int, self._processes.total(*own.values())), strict=True))

    def _restore_counts(self, counts: dict[str, int]) -> None:
        """The sum over all processes, which one of them goes on from."""
        main = self._processes.is_main
        self._collate.load_state_dict(counts if main else dict.fromkeys(counts, 0))

    def _restore(self, checkpoint: SavedState) -> None:
        tensors, plain = checkpoint.tensors(), checkpoint.plain()
        restore_model(self._model, tensors)
        restore_optimizer(self._optimizer, tensors, plain["optimizer"])
        restore_scheduler(self._scheduler, plain["scheduler"])
        restore_random_of(self._processes.rank, tensors, plain["random"])
        self._average.restore(tensors)
        self._restore_counts(plain["collator"])
        self._restore_watch(plain["best"], plain["watch"])

    def restore_finished(self, checkpoint: SavedState) -> None:
        """Of a run whose last step was done: only what `finish` needs."""
        tensors, plain = checkpoint.tensors(), checkpoint.plain()
        restore_model(self._model, tensors)
        self._average.restore(tensors)
        self._restore_counts(plain["collator"])
        self._restore_watch(plain["best"], plain["watch"])
        self.step = checkpoint.step

    def _restore_watch(self, best: Mapping[str, Any], watch: Mapping[str, Any]) -> None:
        self._best = Best(**best)
        self._plan.start(watch["elapsed"])
        self.mean_loss = math.nan if watch["mean_loss"] is None else watch["mean_loss"]
        self._reported, self._evaluated = watch["reported"], watch["evaluated"]
        self._snapshots = watch["snapshots"]
        self._losses = [torch.tensor(watch["losses"])] if watch["losses"] else []
