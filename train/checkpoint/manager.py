"""Writing, pruning and opening of the checkpoints of one run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import EdgeError
from edge.train.checkpoint.state import broadcast_state
from edge.train.checkpoint.store import (
    checkpoint_errors,
    checkpoint_path,
    open_checkpoint,
    prune,
    steps_in,
    write_checkpoint,
)
from edge.train.distributed import SINGLE_PROCESS
from edge.train.events import Event

if TYPE_CHECKING:
    from edge.train.checkpoint.state import SavedState, Tensors
    from edge.train.config import TrainConfig
    from edge.train.distributed import Processes
    from edge.train.events import OnEvent

# Returns the state as tensors and JSON.
StateDict = Callable[[], tuple["Tensors", dict[str, Any]]]


class CheckpointManager:
    """Decides when a checkpoint is due, writes it, and deletes the older ones.

    It keeps the last `save_limit` checkpoints and the best one.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        fingerprint: Mapping[str, Any],
        on_event: OnEvent,
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        self._config = config
        self._folder = folder
        self._fingerprint = fingerprint
        self._on_event = on_event
        self._processes = processes
        self._last_save = time.monotonic()
        self.saved_step = 0

    def is_due(self, step: int) -> bool:
        """Whether to save at `step`, by the step count and by this process's clock."""
        every, minutes = self._config.save_steps, self._config.save_minutes
        if every is not None and step % every == 0:
            return True
        return minutes > 0 and time.monotonic() - self._last_save >= minutes * 60

    def save(self, step: int, best_step: int, state_dict: StateDict) -> None:
        """Write the checkpoint of `step`, unless it is there already.

        Raises:
            EdgeError: It can't be written; the earlier checkpoints are still there.
        """
        if self.saved_step == step:
            return
        tensors, json_state = state_dict()  # a collective operation of all processes
        self._processes.on_main_process(lambda: self._write(step, best_step, tensors, json_state))
        self.saved_step, self._last_save = step, time.monotonic()
        self._on_event(Event("checkpoint", step=step))

    def _write(
        self, step: int, best_step: int, tensors: Tensors, json_state: dict[str, Any]
    ) -> None:
        write_checkpoint(self._folder, step, self._fingerprint, tensors, json_state)
        steps = steps_in(self._folder)
        # Later steps are damaged checkpoints that were passed over: they take no place from those
        # of this run, and are replaced when it gets there.
        done = [other for other in steps if other <= step]
        later = [other for other in steps if other > step]
        prune(self._folder, keep=[*done[-self._config.save_limit :], best_step, *later])

    def try_to_save(self, step: int, best_step: int, state_dict: StateDict) -> None:
        """As `save`, but a failure such as a full disk is only a warning."""
        try:
            self.save(step, best_step, state_dict)
        except EdgeError as error:
            self._last_save = time.monotonic()
            steps = steps_in(self._folder)
            kept = f"the newest is of step {steps[-1]}" if steps else "there is none yet"
            message = f"no checkpoint of step {step}: {error}; {kept}, training continues"
            self._on_event(Event("warning", message))

    @contextlib.contextmanager
    def reading(self, step: int) -> Iterator[None]:
        """The boundary around applying the checkpoint of `step`.

        Raises:
            CheckpointError: Its content does not fit; the message says what to do.
        """
        advice = (
            "; move that folder away to resume from an older checkpoint, or replace --resume by"
            " --force to start over"
        )
        with checkpoint_errors(checkpoint_path(self._folder, step), advice):
            yield

    def open(self, step: int) -> SavedState:
        """The checkpoint of `step`, in every process.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        found = self._processes.on_main_process(lambda: open_checkpoint(self._folder, step))
        state = broadcast_state(found, self._processes)
        assert state is not None
        return state

    def resumed_from(self, step: int) -> None:
        """Note that the run continues from the checkpoint of `step`."""
        self.saved_step = step
