"""Accuracy of an artifact on a data set: text metrics of its answers, and eval_loss."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.bench.artifacts.scores import RowScores
from edge.runtime.generation import Generation
from edge.runtime.model import Model
from edge.runtime.rows import Row
from edge.train.metrics import fit_band_eval_loss, fit_band_rouge_l

# Rows in one engine call: enough to be fast, few enough to show progress.
_CHUNK = 64
WORST_ROWS = 10
MAX_TASKS = 50  # the largest are kept
_MAX_CHARACTERS = 2000  # of each text of a worst row


@dataclass(frozen=True)
class Scores:
    """Metrics of some rows.

    `exact_match` (white space collapsed), `verbatim_match` (every character; None in reports of
    older versions) and `rouge_l` are fractions, `bleu` and `chrf` 0 to 100; `eval_loss` is in nats
    per target token, eos included and padding excluded. `intervals` holds the 95 % bootstrap
    interval of each metric, low and high; it is empty for fewer than 10 rows.
    """

    rows: int
    exact_match: float
    rouge_l: float
    bleu: float
    chrf: float
    eval_loss: float
    intervals: dict[str, tuple[float, float]]
    verbatim_match: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class WorstRow:
    """A row whose answer is not its target.

    `line` is the line in the data file, 0 if there is no file; `eval_loss` is that of this row.
    Texts are cut after 2,000 characters.
    """

    line: int
    task: str | None
    input: str
    target: str
    prediction: str
    rouge_l: float
    eval_loss: float


@dataclass(frozen=True)
class Accuracy(Scores):
    """Metrics of all rows.

    Attributes:
        truncated: number of inputs that were cut to the artifact's limit.
        fit: the bands of eval_loss and rouge_l, as after training.
        tasks: metrics of each task's rows, the largest task first.
        worst: the rows with the lowest ROUGE-L, the worst first.
        predictions: the answers, in order.
        row_scores: the statistics of each row, for paired tests.
        agreement: the ratio of answers that equal the reference's, None without a reference.
        reference: the name of the reference.
    """

    truncated: int
    fit: dict[str, str]
    tasks: dict[str, Scores]
    worst: tuple[WorstRow, ...]
    predictions: tuple[str, ...]
    row_scores: RowScores = field(compare=False, repr=False)
    agreement: float | None = None
    reference: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields for the report's JSON document, without `predictions` and `row_scores`."""
        left_out = ("predictions", "row_scores", "tasks", "worst")
        values = {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(self)
            if one.name not in left_out
        }
        return values | {
            "tasks": {task: dataclasses.asdict(scores) for task, scores in self.tasks.items()},
            "worst": [dataclasses.asdict(row) for row in self.worst],
        }


def measure_accuracy(
    model: Model,
    rows: Sequence[Row],
    on_progress: Callable[[int], None] | None = None,
    *,
    worst: int = WORST_ROWS,
) -> Accuracy:
    """Answer every row greedily and score every target.

    `agreement` is left empty: see `edge.bench.artifacts.agreement`.

    Args:
        model: a loaded artifact.
        rows: inputs with targets.
        on_progress: called with the number of rows done.
        worst: how many of the worst rows to keep.

    Raises:
        MissingExtraError: rouge-score or sacrebleu is not installed.
    """
    predictions: list[str] = []
    losses: list[float] = []
    tokens: list[int] = []
    truncated = 0
    for first in range(0, len(rows), _CHUNK):
        chunk = rows[first : first + _CHUNK]
        answers = _answers(model, chunk)
        predictions += [answer.text for answer in answers]
        truncated += sum(answer.truncated for answer in answers)
        for log_probs in model.score(
            [row.input for row in chunk],
            [row.target or "" for row in chunk],
            fields=[row.fields for row in chunk],
            on_long="truncate",
        ):
            losses.append(-float(log_probs.sum(dtype=np.float64)))
            tokens.append(len(log_probs))
        if on_progress:
            on_progress(len(predictions))
    scores = RowScores(predictions, [row.target or "" for row in rows], losses, tokens)
    metrics = scores.metrics()
    return Accuracy(
        **metrics,
        truncated=truncated,
        fit={
            "eval_loss": fit_band_eval_loss(metrics["eval_loss"]),
            "rouge_l": fit_band_rouge_l(metrics["rouge_l"]),
        },
        tasks={task: Scores(**scores.metrics(own)) for task, own in _rows_by_task(rows).items()},
        worst=_worst_rows(rows, predictions, scores, np.array(losses) / np.array(tokens), worst),
        predictions=tuple(predictions),
        row_scores=scores,
    )


def default_answers(model: Model, rows: Sequence[Row]) -> list[str]:
    """The model's answer to each row, with its generation defaults, as in `measure_accuracy`."""
    chunks = (rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK))
    return [answer.text for chunk in chunks for answer in _answers(model, chunk)]


def copy_baseline(rows: Sequence[Row]) -> dict[str, Any]:
    """The metrics (without eval_loss) of copying each input as the answer.

    Raises:
        MissingExtraError: rouge-score or sacrebleu is not installed.
    """
    copied = [row.input for row in rows]
    return RowScores(copied, [row.target or "" for row in rows]).metrics()


def _answers(model: Model, rows: Sequence[Row]) -> list[Generation]:
    return model.generate(
        [row.input for row in rows],
        fields=[row.fields for row in rows],
        on_long="truncate",
        seed=0,  # for artifacts that sample by default
    )


def _rows_by_task(rows: Sequence[Row]) -> dict[str, list[int]]:
    """The indices of each task's rows, for the largest tasks."""
    counts = Counter(row.task for row in rows if row.task is not None)
    indices: dict[str, list[int]] = {task: [] for task, _ in counts.most_common(MAX_TASKS)}
    for index, row in enumerate(rows):
        if row.task in indices:
            indices[row.task].append(index)
    return indices


def _worst_rows(
    rows: Sequence[Row],
    predictions: Sequence[str],
    scores: RowScores,
    losses: np.ndarray,
    count: int,
) -> tuple[WorstRow, ...]:
    """The lowest ROUGE-L first; on a tie, the highest loss first."""
    order = np.lexsort((-losses, scores.rouge_l))
    chosen = [int(index) for index in order if not scores.exact[index]][:count]
    return tuple(
        WorstRow(
            line=rows[index].line,
            task=rows[index].task,
            input=_cut(rows[index].input),
            target=_cut(rows[index].target or ""),
            prediction=_cut(predictions[index]),
            rouge_l=float(scores.rouge_l[index]),
            eval_loss=float(losses[index]),
        )
        for index in chosen
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"
