"""Evaluation of a run's model on its dev rows, during training and at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.train.evaluate import (
    EvaluationOptions,
    StopEvaluationError,
    evaluate,
    evaluation_loss,
)
from edge.train.events import Event

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from edge.train.config import TrainConfig
    from edge.train.distributed import Processes
    from edge.train.evaluate import Evaluation
    from edge.train.events import EventDispatcher
    from edge.train.model.loading import Trainable


class DevEvaluator:
    """Evaluates on tokenized dev rows with the batch size and limits of a run."""

    def __init__(
        self,
        config: TrainConfig,
        trainable: Trainable,
        rows: Dataset,
        events: EventDispatcher,
        processes: Processes,
    ) -> None:
        self._config = config
        self._trainable = trainable
        self._rows = rows
        self._events = events
        self._processes = processes

    def evaluate(self, model: PreTrainedModel | None = None) -> Evaluation:
        """All metrics of `model`, by default the model that is trained; reports its progress."""
        self._events.stage("evaluating")
        return evaluate(
            model if model is not None else self._trainable.model,
            self._trainable.tokenizer,
            self._rows,
            generation=self._trainable.generation,
            end_token_ids=self._trainable.end_token_ids,
            options=self._options(
                lambda fraction: self._events(Event("progress", "evaluating", fraction))
            ),
        )

    def during_training(self, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """The metrics that `best_metric` needs, or None if `should_stop` became true."""

        def check(fraction: float) -> None:
            if fraction < 1.0 and should_stop():
                raise StopEvaluationError

        model, tokenizer = self._trainable.model, self._trainable.tokenizer
        options = self._options(check)
        try:
            if self._config.best_metric == "eval_loss":
                return evaluation_loss(model, tokenizer, self._rows, options=options)
            return evaluate(
                model,
                tokenizer,
                self._rows,
                generation=self._trainable.generation,
                end_token_ids=self._trainable.end_token_ids,
                options=options,
            ).metrics
        except StopEvaluationError:
            return None

    def _options(self, on_progress: Callable[[float], None]) -> EvaluationOptions:
        return EvaluationOptions(
            self._config.eval_batch_size, self._processes, on_progress, self._warn_halved
        )

    def _warn_halved(self, rows: int) -> None:
        message = (
            f"evaluation: batches of {rows} rows or more do not fit in memory and are halved; lower"
            " --eval-batch-size to avoid the failed attempts"
        )
        if message not in self._events.warnings:
            self._events.warn([message])
