"""How well an artifact answers a data set: text metrics of its greedy answers, and eval_loss."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.bench.artifacts.scores import RowScores
from edge.runtime.model import Model
from edge.runtime.rows import Row
from edge.train.metrics import fit_band_eval_loss, fit_band_rouge_l

# Rows in one engine call: enough to be fast, few enough to show progress.
_CHUNK = 64
WORST_ROWS = 10
# More tasks than a table can show; the largest are kept.
MAX_TASKS = 50
_MAX_CHARACTERS = 2000  # of each text of a worst row


@dataclass(frozen=True)
class Scores:
    """Fractions 0 to 1 but for `bleu` and `chrf` (0 to 100); `eval_loss` in nats per target token,
    eos included and padding excluded. `intervals` hold each figure's 95 % bootstrap interval, low
    and high; there are none for fewer than 10 rows."""

    rows: int
    exact_match: float
    rouge_l: float
    bleu: float
    chrf: float
    eval_loss: float
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class WorstRow:
    """A row that was not answered as its target says. `line` is 0 where no file was read;
    `eval_loss` is of this row alone. Texts are cut after 2,000 characters."""

    line: int
    task: str | None
    input: str
    target: str
    prediction: str
    rouge_l: float
    eval_loss: float


@dataclass(frozen=True)
class Accuracy(Scores):
    """Scores of all rows. `truncated` counts inputs that were cut to the limit; `fit` names the
    bands of eval_loss and rouge_l, as after training; `tasks` are the scores of each task's rows,
    largest first; `worst` has the lowest ROUGE-L first. `agreement` is the share of answers that
    are those of `reference` to the letter, None where there is none."""

    truncated: int
    fit: dict[str, str]
    tasks: dict[str, Scores]
    worst: tuple[WorstRow, ...]
    predictions: tuple[str, ...]
    agreement: float | None = None
    reference: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields less `predictions`, for the report's JSON document."""
        values = dataclasses.asdict(self)
        del values["predictions"]
        return values


def measure_accuracy(
    model: Model,
    rows: Sequence[Row],
    on_progress: Callable[[int], None] | None = None,
    *,
    worst: int = WORST_ROWS,
) -> Accuracy:
    """Answer every row greedily and score every target; `on_progress` gets the rows done.

    Agreement is for whoever knows the reference: see `edge.bench.artifacts.agreement`.

    Raises:
        MissingExtraError: rouge-score or sacrebleu is not installed.
    """
    predictions: list[str] = []
    losses: list[float] = []
    tokens: list[int] = []
    truncated = 0
    for first in range(0, len(rows), _CHUNK):
        chunk = rows[first : first + _CHUNK]
        answers = _greedy(model, chunk)
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
    figures = scores.figures()
    return Accuracy(
        **figures,
        truncated=truncated,
        fit={
            "eval_loss": fit_band_eval_loss(figures["eval_loss"]),
            "rouge_l": fit_band_rouge_l(figures["rouge_l"]),
        },
        tasks={task: Scores(**scores.figures(places)) for task, places in _tasks(rows).items()},
        worst=_worst(rows, predictions, scores, np.array(losses) / np.array(tokens), worst),
        predictions=tuple(predictions),
    )


def greedy_answers(model: Model, rows: Sequence[Row]) -> list[str]:
    """The model's greedy answer to each row, as `measure_accuracy` asks for them."""
    chunks = (rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK))
    return [answer.text for chunk in chunks for answer in _greedy(model, chunk)]


def copy_baseline(rows: Sequence[Row]) -> dict[str, Any]:
    """What an artifact must beat: the scores (less eval_loss) of giving each input as its answer.

    Raises:
        MissingExtraError: rouge-score or sacrebleu is not installed.
    """
    copied = [row.input for row in rows]
    return RowScores(copied, [row.target or "" for row in rows]).figures()


def _greedy(model: Model, rows: Sequence[Row]) -> list[Any]:
    return model.generate(
        [row.input for row in rows],
        fields=[row.fields for row in rows],
        on_long="truncate",
        num_beams=1,
        do_sample=False,
    )


def _tasks(rows: Sequence[Row]) -> dict[str, list[int]]:
    """The places of each task's rows, for the tasks with the most rows."""
    counts = Counter(row.task for row in rows if row.task is not None)
    places: dict[str, list[int]] = {task: [] for task, _ in counts.most_common(MAX_TASKS)}
    for place, row in enumerate(rows):
        if row.task in places:
            places[row.task].append(place)
    return places


def _worst(
    rows: Sequence[Row],
    predictions: Sequence[str],
    scores: RowScores,
    losses: np.ndarray,
    count: int,
) -> tuple[WorstRow, ...]:
    """Lowest ROUGE-L first, and of equals the one whose target surprises the model most."""
    order = np.lexsort((-losses, scores.rouge_l))
    chosen = [int(place) for place in order if not scores.right[place]][:count]
    return tuple(
        WorstRow(
            line=rows[place].line,
            task=rows[place].task,
            input=_cut(rows[place].input),
            target=_cut(rows[place].target or ""),
            prediction=_cut(predictions[place]),
            rouge_l=float(scores.rouge_l[place]),
            eval_loss=float(losses[place]),
        )
        for place in chosen
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"
