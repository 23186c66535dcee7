"""How far a run is, by steps, by the clock or by both, and the learning rate that goes with it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


@dataclass
class TrainingSchedule:
    """Warm-up, then linear or cosine decay to zero, or none, by the end of the steps or the time.

    A run that is planned by time ends in time on a slow machine too, and with a learning rate of
    zero, not in the middle of its schedule.
    """

    steps: int | None
    seconds: float | None
    warmup_ratio: float = 0.05
    shape: str = "linear"
    _started: float = field(default_factory=time.monotonic)
    _agreed: float | None = None

    def start(self, elapsed: float = 0.0) -> None:
        """Begin to count, with what an earlier part of the run took."""
        self._started = time.monotonic() - elapsed

    def agree(self, elapsed: float) -> None:
        """From now on it is this late, until told otherwise: several processes share one clock."""
        self._agreed = elapsed

    @property
    def elapsed(self) -> float:
        """Seconds since `start`, or what was agreed on."""
        return self.own_elapsed if self._agreed is None else self._agreed

    @property
    def own_elapsed(self) -> float:
        """Seconds since `start` by this process's clock."""
        return time.monotonic() - self._started

    def progress(self, step: int) -> float:
        """0 at the start, 1 at the end."""
        by_step = step / self.steps if self.steps else 0.0
        by_clock = self.elapsed / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_step, by_clock))

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by, 0 to 1."""
        progress = self.progress(step)
        if progress < self.warmup_ratio:
            # The first step is one that learns, not one at rate zero.
            by_step = 1 / (self.steps * self.warmup_ratio) if self.steps else 0.0
            return min(1.0, max(progress / self.warmup_ratio, by_step, 0.02))
        if self.shape == "constant":
            return 1.0
        left = (1.0 - progress) / (1.0 - self.warmup_ratio)
        return left if self.shape == "linear" else (1.0 - math.cos(math.pi * left)) / 2

    def seconds_left(self, step: int) -> float | None:
        """An estimate, None before there is anything to estimate from."""
        progress = self.progress(step)
        return self.elapsed * (1 - progress) / progress if progress > 0.001 else None
