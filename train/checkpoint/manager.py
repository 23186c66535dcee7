"""Which states of a run are kept: checkpoints by steps or time, the best, snapshots by epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import EdgeError
from edge.train.checkpoint.state import state_for_all
from edge.train.checkpoint.store import open_checkpoint, prune, steps_in, write_checkpoint
from edge.train.config import METRICS
from edge.train.distributed import ALONE
from edge.train.events import Event

if TYPE_CHECKING:
    from edge.train.checkpoint.state import SavedState, Tensors
    from edge.train.config import TrainConfig
    from edge.train.distributed import Processes
    from edge.train.events import OnEvent
    from edge.train.run_folder import RunFolder

Capture = Callable[[], tuple["Tensors", dict[str, Any]]]


@dataclass
class Best:
    """The best evaluation so far, and how many in a row were no better."""

    metric: str
    value: float | None = None
    step: int = 0
    worse: int = 0

    def add(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Whether this evaluation is the best so far."""
        value = metrics[self.metric]
        sign = 1 if METRICS[self.metric] else -1
        if not math.isnan(value) and (self.value is None or sign * value < sign * self.value):
            self.value, self.step, self.worse = value, step, 0
            return True
        self.worse += 1
        return False

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class CheckpointManager:
    """Writes checkpoints of one run and removes those that are no longer wanted."""

    def __init__(
        self,
        config: TrainConfig,
        run: RunFolder,
        identity: Mapping[str, Any],
        on_event: OnEvent,
        processes: Processes = ALONE,
    ) -> None:
        self._config = config
        self._processes = processes
        self._run = run
        self._identity = identity
        self._on_event = on_event
        self._last = time.monotonic()
        self.saved_step = 0

    def is_due(self, step: int) -> bool:
        """By this process's clock."""
        every, minutes = self._config.save_steps, self._config.save_minutes
        if every is not None and step % every == 0:
            return True
        return minutes > 0 and time.monotonic() - self._last >= minutes * 60

    def save(self, step: int, best: Best, capture: Capture) -> None:
        """Write the checkpoint of `step`.

        Raises:
            EdgeError: it can't be written; the ones before are still there.
        """
        if self.saved_step == step:
            return
        tensors, plain = capture()  # in which all processes take part
        self._processes.lead(lambda: self._write(step, best, tensors, plain))
        self.saved_step, self._last = step, time.monotonic()
        self._on_event(Event("checkpoint", step=step))

    def _write(self, step: int, best: Best, tensors: Tensors, plain: dict[str, Any]) -> None:
        place = self._run.checkpoints
        write_checkpoint(place, step, self._identity, tensors, plain)
        steps = steps_in(place)
        prune(place, keep=[*steps[-self._config.save_limit :], best.step])

    def try_to_save(self, step: int, best: Best, capture: Capture) -> None:
        """As `save`, but a full disk is only worth a warning: the training is worth more."""
        try:
            self.save(step, best, capture)
        except EdgeError as error:
            self._last = time.monotonic()
            steps = steps_in(self._run.checkpoints)
            kept = f"the newest is of step {steps[-1]}" if steps else "there is none yet"
            message = f"no checkpoint of step {step}: {error}; {kept}, training goes on"
            self._on_event(Event("warning", message))

    def open(self, step: int) -> SavedState:
        """The checkpoint of that step, for every process."""
        place = self._run.checkpoints
        state = state_for_all(
            self._processes.lead(lambda: open_checkpoint(place, step)), self._processes
        )
        assert state is not None
        return state

    def resumed(self, step: int) -> None:
        self.saved_step = step
