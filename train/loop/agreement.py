"""Decisions that all processes must make alike: time elapsed, checkpoints, stopping."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.train.checkpoint.manager import CheckpointManager
    from edge.train.distributed import Processes
    from edge.train.loop.schedule import TrainingSchedule
    from edge.train.loop.signals import StopRequest


class ProcessAgreement:
    """Shares what each process reads from its own clock and signals.

    After `update`, the schedule has the same time in all processes, `is_save_due` says whether to
    write a checkpoint, and `stop_signal` is the number of a signal that any process received, or 0.
    """

    def __init__(
        self,
        schedule: TrainingSchedule,
        checkpoints: CheckpointManager,
        stop: StopRequest,
        processes: Processes,
    ) -> None:
        self._schedule = schedule
        self._checkpoints = checkpoints
        self._stop = stop
        self._processes = processes
        self.is_save_due = False
        self.stop_signal = 0

    def update(self, step: int) -> None:
        """Agree on the state after `step`; a collective operation of all processes."""
        elapsed, is_due = self._schedule.local_elapsed, self._checkpoints.is_due(step)
        signal = self._stop.signal or 0
        if self._processes.world_size == 1:
            self.is_save_due, self.stop_signal = is_due, signal
            return
        own = (elapsed, is_due) if self._processes.is_main else (0.0, False)
        elapsed, due, received = self._processes.all_reduce_max(*own, signal)
        self._schedule.synchronize(elapsed)
        self.is_save_due, self.stop_signal = bool(due), int(received)
