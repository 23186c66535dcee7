"""How well an artifact answers a data set: text metrics of its greedy answers, and eval_loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.runtime.model import Model
from edge.runtime.rows import Row
from edge.train.metrics import text_metrics

# Rows in one engine call: enough to be fast, few enough to show progress.
_CHUNK = 64


@dataclass(frozen=True)
class Accuracy:
    """Fractions 0 to 1 but for `bleu` (0 to 100); `eval_loss` in nats per target token, eos
    included and padding excluded. `truncated` counts inputs that were cut to the limit."""

    rows: int
    exact_match: float
    rouge_l: float
    bleu: float
    eval_loss: float
    truncated: int
    predictions: tuple[str, ...]


def measure_accuracy(
    model: Model,
    rows: Sequence[Row],
    on_progress: Callable[[int], None] | None = None,
) -> Accuracy:
    """Answer every row greedily and score every target; `on_progress` gets the rows done."""
    predictions: list[str] = []
    losses: list[float] = []
    tokens = truncated = 0
    for first in range(0, len(rows), _CHUNK):
        chunk = rows[first : first + _CHUNK]
        inputs = [row.input for row in chunk]
        targets = [row.target or "" for row in chunk]
        fields = [row.fields for row in chunk]
        answers = model.generate(
            inputs, fields=fields, on_long="truncate", num_beams=1, do_sample=False
        )
        predictions += [answer.text for answer in answers]
        truncated += sum(answer.truncated for answer in answers)
        for log_probs in model.score(inputs, targets, fields=fields, on_long="truncate"):
            losses.append(-float(log_probs.sum()))
            tokens += len(log_probs)
        if on_progress:
            on_progress(len(predictions))
    metrics = text_metrics(predictions, [row.target or "" for row in rows])
    return Accuracy(
        rows=len(rows),
        exact_match=metrics["exact_match"],
        rouge_l=metrics["rouge_l"],
        bleu=metrics["bleu"],
        eval_loss=math.fsum(losses) / tokens,
        truncated=truncated,
        predictions=tuple(predictions),
    )
