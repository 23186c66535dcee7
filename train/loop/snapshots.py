"""Copies of the model that are kept every few epochs."""

from __future__ import annotations

from collections.abc import Callable


class EpochSnapshots:
    """Saves the model every `every` epochs under the name `epoch-003`; None is off.

    Args:
        every: Epochs between snapshots.
        steps_per_epoch: Optimizer steps, not necessarily a whole number.
        save: Writes the model as it is under the given name.
    """

    def __init__(
        self, every: int | None, steps_per_epoch: float, save: Callable[[str], None]
    ) -> None:
        self._every = every or 0
        self._interval = self._every * steps_per_epoch
        self._save = save
        self.count = 0  # that were due so far

    def is_due(self, step: int) -> bool:
        """Whether a snapshot is due after `step`."""
        return self._interval > 0 and step >= (self.count + 1) * self._interval

    def take(self, step: int) -> None:
        """Save the model as it is."""
        self.count = int(step / self._interval)
        self._save(f"epoch-{self.count * self._every:03d}")
