"""How good a model is on held-out rows: eval_loss by teacher forcing, metrics of what it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.train.data import IGNORED_LABEL, Collator
from edge.train.distributed import ALONE
from edge.train.metrics import fit_band_eval_loss, fit_band_rouge_l, text_metrics

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from edge.train.distributed import Processes


@dataclass(frozen=True)
class Evaluation:
    """Figures (eval_loss in nats per target token) and the prediction of each row, in order.

    `by_task` has the figures of each task and its rows, where rows name two tasks or more.
    """

    metrics: dict[str, float]
    predictions: list[str]
    by_task: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def bands(self) -> dict[str, str]:
        return {
            "eval_loss": fit_band_eval_loss(self.metrics["eval_loss"]),
            "rouge_l": fit_band_rouge_l(self.metrics["rouge_l"]),
        }


class StopEvaluationError(Exception):
    """Raised by `on_fraction` to end an evaluation that nobody waits for any more."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How an evaluation goes on: rows of a batch, who shares the work, who hears of it.

    `on_fraction` hears how much is done, 0 to 1, `on_halved` the rows of a batch that was too big
    for memory. Each process does every `count`th batch, so that the figures are those of one.
    """

    batch_size: int = 64
    processes: Processes = ALONE
    on_fraction: Callable[[float], None] | None = None
    on_halved: Callable[[int], None] | None = None


@dataclass(frozen=True)
class _Answered:
    """What came of rows: summed cross-entropy, number of labels and the answer, by row number."""

    losses: dict[int, tuple[float, int]]
    answers: dict[int, str]


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    *,
    max_new_tokens: int = 128,
    course: EvaluationOptions = EvaluationOptions(),
) -> Evaluation:
    """eval_loss, exact match, ROUGE-L and BLEU of greedy answers to tokenized rows.

    `rows` has the columns of `edge.train.data.tokenize`. The model stays on its device and in its
    precision.

    Raises:
        StopEvaluationError: `on_fraction` did, in this process or another.
    """
    examples = [dict(row) for row in rows]

    def answer(numbers: list[int], batch: dict[str, Any]) -> _Answered:
        losses = _losses(model, batch)
        answers = _generate(model, tokenizer, batch, max_new_tokens)
        return _Answered(
            dict(zip(numbers, losses, strict=True)), dict(zip(numbers, answers, strict=True))
        )

    done = _through(model, tokenizer, examples, course, answer)
    predictions = [done.answers[number] for number in range(len(examples))]

    def figures(numbers: Sequence[int]) -> dict[str, float]:
        references = [examples[number]["target"] for number in numbers]
        answers = [predictions[number] for number in numbers]
        return {"eval_loss": _mean_loss(done, numbers), **text_metrics(answers, references)}

    tasks: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        if example.get("task") is not None:
            tasks.setdefault(example["task"], []).append(number)
    by_task = {name: {"rows": len(tasks[name]), **figures(tasks[name])} for name in sorted(tasks)}
    return Evaluation(
        figures(range(len(examples))), predictions, by_task if len(by_task) > 1 else {}
    )


def evaluation_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    *,
    course: EvaluationOptions = EvaluationOptions(),
) -> dict[str, float]:
    """eval_loss alone, which takes a fraction of the time that writing answers takes.

    Raises:
        StopEvaluationError: as `evaluate`.
    """
    examples = [dict(row) for row in rows]

    def score(numbers: list[int], batch: dict[str, Any]) -> _Answered:
        return _Answered(dict(zip(numbers, _losses(model, batch), strict=True)), {})

    done = _through(model, tokenizer, examples, course, score)
    return {"eval_loss": _mean_loss(done, range(len(examples)))}


def _mean_loss(done: _Answered, numbers: Sequence[int]) -> float:
    pairs = [done.losses[number] for number in numbers]
    return sum(loss for loss, _ in pairs) / sum(count for _, count in pairs)


def _through(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[dict[str, Any]],
    course: EvaluationOptions,
    work: Callable[[list[int], dict[str, Any]], _Answered],
) -> _Answered:
    """`work` on all examples in batches, by all processes; what came of them on each."""
    import torch

    collate = Collator(tokenizer)

    def batch_of(numbers: list[int]) -> _Answered:
        batch = collate([examples[number] for number in numbers])
        return work(numbers, {name: tensor.to(model.device) for name, tensor in batch.items()})

    mine: list[_Answered] = []
    stopped = False
    done = 0
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for place, numbers in enumerate(_by_length(examples, course.batch_size)):
                done += len(numbers)
                if place % course.processes.count != course.processes.rank:
                    continue
                mine += _in_halves(batch_of, numbers, course.on_halved)
                if course.on_fraction is not None:
                    course.on_fraction(done / len(examples))
    except StopEvaluationError:
        stopped = True
    finally:
        model.train(was_training)
    parts: list[_Answered] = []
    for part in course.processes.gather(None if stopped else mine):
        if part is None:
            raise StopEvaluationError
        parts += part
    whole = _Answered({}, {})
    for answered in parts:
        whole.losses.update(answered.losses)
        whole.answers.update(answered.answers)
    return whole


def _in_halves(
    work: Callable[[list[int]], _Answered],
    numbers: list[int],
    on_halved: Callable[[int], None] | None,
) -> list[_Answered]:
    """`work` on the numbers, in halves where all at once are too big for memory."""
    from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

    try:
        return [work(numbers)]
    except RuntimeError as error:
        if len(numbers) == 1 or not should_reduce_batch_size(error):
            raise
    clear_device_cache(garbage_collection=True)
    if on_halved is not None:
        on_halved(len(numbers))
    half = len(numbers) // 2
    halves = (numbers[:half], numbers[half:])
    return [part for rows in halves for part in _in_halves(work, rows, on_halved)]


def _by_length(examples: Sequence[dict[str, Any]], batch_size: int) -> Iterator[list[int]]:
    order = sorted(range(len(examples)), key=lambda number: -len(examples[number]["input_ids"]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _losses(model: PreTrainedModel, batch: dict[str, Any]) -> list[tuple[float, int]]:
    """Each row's summed cross-entropy of its labels, and how many there are, without padding."""
    import torch.nn.functional as F

    logits = model(**batch).logits.float()
    labels = batch["labels"]
    each = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
    )
    sums = each.view(labels.shape).double().sum(dim=1).tolist()
    counts = (labels != IGNORED_LABEL).sum(dim=1).tolist()
    return list(zip(sums, counts, strict=True))


def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: dict[str, Any],
    max_new_tokens: int,
) -> list[str]:
    ids = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=max_new_tokens,
        num_beams=1,
        do_sample=False,
    )
    return tokenizer.batch_decode(ids, skip_special_tokens=True)
