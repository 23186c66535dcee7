"""Progress of a run, by steps or by time, and the learning rate that goes with it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


@dataclass
class TrainingSchedule:
    """Warm-up, then linear or cosine decay to zero, or none.

    A run with a time limit ends on time on a slow machine too, and with a learning rate of zero
    instead of in the middle of its schedule.

    Attributes:
        steps: Optimizer steps of the run; None: only the time limits it.
        seconds: Time limit; None: only the steps limit it.
        warmup_ratio: Part of the run in which the learning rate rises.
        shape: "linear", "cosine" or "constant", after the warm-up.
    """

    steps: int | None
    seconds: float | None
    warmup_ratio: float = 0.05
    shape: str = "linear"
    _started: float = field(default_factory=time.monotonic)
    _synchronized: float | None = None

    def start(self, elapsed: float = 0.0) -> None:
        """Start the clock, at the `elapsed` seconds of the run that is resumed."""
        self._started = time.monotonic() - elapsed

    def synchronize(self, elapsed: float) -> None:
        """Use this time until the next call: several processes share one clock."""
        self._synchronized = elapsed

    @property
    def elapsed(self) -> float:
        """Seconds since `start`, or those of the last `synchronize`."""
        return self.local_elapsed if self._synchronized is None else self._synchronized

    @property
    def local_elapsed(self) -> float:
        """Seconds since `start` by this process's clock."""
        return time.monotonic() - self._started

    def progress(self, step: int) -> float:
        """0 at the start, 1 at the end."""
        by_step = step / self.steps if self.steps else 0.0
        by_clock = self.elapsed / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_step, by_clock))

    def factor(self, step: int) -> float:
        """The factor of the peak learning rate at `step`, 0 to 1."""
        progress = self.progress(step)
        if progress < self.warmup_ratio:
            # Not zero at the first step, which would learn nothing.
            by_step = 1 / (self.steps * self.warmup_ratio) if self.steps else 0.0
            return min(1.0, max(progress / self.warmup_ratio, by_step, 0.02))
        if self.shape == "constant":
            return 1.0
        left = (1.0 - progress) / (1.0 - self.warmup_ratio)
        return left if self.shape == "linear" else (1.0 - math.cos(math.pi * left)) / 2

    def seconds_left(self, step: int) -> float | None:
        """An estimate; None at the very start."""
        progress = self.progress(step)
        return self.elapsed * (1 - progress) / progress if progress > 0.001 else None
