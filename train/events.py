"""What a training run tells while it goes on. The room prints nothing; who calls it may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    kind: "warning" (message), "stage" (message names what begins), "start" (details hold every
    hyperparameter and what was decided about the machine; reasons, by name, why those that were
    chosen for this data are as they are), "progress" (training or evaluation:
    fraction of the stage done, 0 to 1, and in training step, loss, learning rate, rows and tokens
    per second, padding waste and seconds left), "eval" (step; details hold the figures of an
    evaluation while training), "checkpoint" (step), "resumed" (step), "note" (message),
    "end" (message).

    padding_waste is the share of padding among all positions of the batches so far, 0 to 1.
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
    """The default listener."""
