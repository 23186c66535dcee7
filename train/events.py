"""Events that a training run reports. `edge.train` prints nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One event. Which fields are set depends on `kind`:

    - "warning", "note": `message`.
    - "stage": `message` is the name of the stage that begins.
    - "start": `details` hold all hyperparameters and the device; `reasons` say, by name, why a
      value was chosen for this data set.
    - "progress": `message` is "training" or "evaluating", `fraction` how much of it is done, 0 to
      1. In training also `step`, `loss`, `learning_rate`, `rows_per_second`, `tokens_per_second`,
      `padding_waste` (padding as a fraction of all positions so far) and `seconds_left`.
    - "eval": `step`; `details` hold the metrics of an evaluation during training.
    - "checkpoint", "resumed": `step`.
    - "end": `message`.
    """

    kind: str
    message: str = ""
    fraction: float = 0.0
    step: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    rows_per_second: float | None = None
    tokens_per_second: float | None = None
    padding_waste: float | None = None
    seconds_left: float | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The default listener, which does nothing."""


class EventDispatcher:
    """Passes each event to all listeners and keeps the warnings."""

    def __init__(self, listeners: Iterable[OnEvent]) -> None:
        self._listeners = list(listeners)
        self.warnings: list[str] = []

    def __call__(self, event: Event) -> None:
        """Pass the event on."""
        if event.kind == "warning":
            self.warnings.append(event.message)
        for listener in self._listeners:
            listener(event)

    def stage(self, name: str) -> None:
        """Report that a stage begins."""
        self(Event("stage", name))

    def warn(self, messages: Iterable[str]) -> None:
        """Report each message as a warning."""
        for message in messages:
            self(Event("warning", message))
