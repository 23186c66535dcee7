"""Evaluation during training: when it is due, the best result so far, and early stopping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edge.train.config import METRICS
from edge.train.events import Event

if TYPE_CHECKING:
    from edge.train.config import TrainConfig
    from edge.train.events import OnEvent

# Returns the metrics of the dev rows, or None if the function that it is given became true.
Evaluate = Callable[[Callable[[], bool]], "dict[str, float] | None"]


@dataclass
class BestEvaluation:
    """The best evaluation so far, and how many have followed without an improvement."""

    metric: str
    value: float | None = None
    step: int = 0
    without_improvement: int = 0

    def update(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Add an evaluation; whether it is the best so far. NaN never is."""
        value = metrics[self.metric]
        sign = 1 if METRICS[self.metric] else -1
        if not math.isnan(value) and (self.value is None or sign * value < sign * self.value):
            self.value, self.step, self.without_improvement = value, step, 0
            return True
        self.without_improvement += 1
        return False

    def __str__(self) -> str:
        return f"{self.metric} {'NaN' if self.value is None else format(self.value, '.4g')}"


class PeriodicEvaluation:
    """Evaluates every `eval_steps` steps, or once per epoch.

    Args:
        config: Its eval_steps, best_metric and patience.
        steps_per_epoch: Optimizer steps, not necessarily a whole number.
        evaluate: Computes the metrics of the model as it is.
        on_event: Is called with each result.
    """

    def __init__(
        self,
        config: TrainConfig,
        steps_per_epoch: float,
        evaluate: Evaluate,
        on_event: OnEvent,
    ) -> None:
        self._interval = config.eval_steps
        if self._interval is None:
            self._interval = max(1, round(steps_per_epoch))
        self._patience = config.patience
        self._evaluate = evaluate
        self._on_event = on_event
        self._evaluated_step = 0
        self.best = BestEvaluation(config.best_metric)

    def is_due(self, step: int, *, is_last: bool = False) -> bool:
        """Whether to evaluate after `step`; the last step is always evaluated, unless it is off."""
        if not self._interval or self._evaluated_step == step:
            return False
        return is_last or step % self._interval == 0

    def run(self, step: int, should_stop: Callable[[], bool]) -> bool:
        """Evaluate; whether the result is the best so far.

        Does nothing if `should_stop` becomes true: the resumed run evaluates this step again.
        """
        metrics = self._evaluate(should_stop)
        if metrics is None:
            return False
        self._evaluated_step = step
        self._on_event(Event("eval", step=step, details=metrics))
        return self.best.update(step, metrics)

    def stops_early(self, step: int) -> bool:
        """Whether the evaluation of `step` was one too many without an improvement."""
        best = self.best
        if (
            not self._patience
            or self._evaluated_step != step
            or best.without_improvement < self._patience
        ):
            return False
        message = (
            f"stopped early at step {step}: no improvement in {best.without_improvement}"
            f" evaluations since step {best.step} ({best})"
        )
        self._on_event(Event("note", message))
        return True

    def state_dict(self) -> dict[str, Any]:
        """The results so far, for a checkpoint."""
        return {"best": asdict(self.best), "evaluated_step": self._evaluated_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.best = BestEvaluation(**state["best"])
        self._evaluated_step = state["evaluated_step"]
