"""Evaluation on tokenized rows: eval_loss by teacher forcing, metrics of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.runtime.inference.batching import batches_by_length
from edge.runtime.options import GenerationOptions
from edge.train.data import IGNORED_LABEL, Collator
from edge.train.device import padding_multiple, release_memory_per_shape
from edge.train.distributed import SINGLE_PROCESS
from edge.train.metrics import fit_band_eval_loss, fit_band_rouge_l, text_metrics
from edge.train.model.answers import generate_texts

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from edge.train.distributed import Processes


_DEFAULT_GENERATION = GenerationOptions(max_new_tokens=128)


@dataclass(frozen=True)
class Evaluation:
    """Metrics (eval_loss in nats per target token) and the prediction of each row, in order.

    `by_task` has the metrics and the number of rows of each task, if there are two tasks or more.
    """

    metrics: dict[str, float]
    predictions: list[str]
    by_task: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def bands(self) -> dict[str, str]:
        """The quality band of eval_loss and of ROUGE-L."""
        return {
            "eval_loss": fit_band_eval_loss(self.metrics["eval_loss"]),
            "rouge_l": fit_band_rouge_l(self.metrics["rouge_l"]),
        }


class StopEvaluationError(Exception):
    """Raised by `on_progress` to end an evaluation whose result is no longer wanted."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How to evaluate. The result is the same for any number of processes.

    Attributes:
        batch_size: Rows of a batch.
        processes: They take turns with the batches.
        on_progress: Is called with the fraction done, 0 to 1.
        on_batch_halved: Is called with the rows of a batch that did not fit in memory.
    """

    batch_size: int = 64
    processes: Processes = SINGLE_PROCESS
    on_progress: Callable[[float], None] | None = None
    on_batch_halved: Callable[[int], None] | None = None


@dataclass(frozen=True)
class _Outputs:
    """By row number: summed cross-entropy with the number of labels, and the answer."""

    losses: dict[int, tuple[float, int]]
    answers: dict[int, str]


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    *,
    generation: GenerationOptions = _DEFAULT_GENERATION,
    end_token_ids: tuple[int, ...] = (),
    options: EvaluationOptions = EvaluationOptions(),
) -> Evaluation:
    """Compute eval_loss, exact match, ROUGE-L and BLEU of the model's answers.

    Args:
        model: Stays on its device and in its precision.
        tokenizer: The model's.
        rows: With the columns of `edge.train.data.tokenize`.
        generation: How answers are generated.
        end_token_ids: The ids that end an answer; empty for the tokenizer's eos.
        options: Batch size, processes and listeners.

    Raises:
        StopEvaluationError: `on_progress` raised it, in this process or another.
    """
    examples = [dict(row) for row in rows]

    def run_batch(numbers: list[int], batch: dict[str, Any]) -> _Outputs:
        losses = _losses(model, batch)
        answers = generate_texts(model, tokenizer, batch, generation, end_token_ids)
        return _Outputs(
            dict(zip(numbers, losses, strict=True)), dict(zip(numbers, answers, strict=True))
        )

    outputs = _run_batches(model, tokenizer, examples, options, run_batch)
    predictions = [outputs.answers[number] for number in range(len(examples))]

    def metrics_of(numbers: Sequence[int]) -> dict[str, float]:
        references = [examples[number]["target"] for number in numbers]
        answers = [predictions[number] for number in numbers]
        return {"eval_loss": _mean_loss(outputs, numbers), **text_metrics(answers, references)}

    tasks: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        if example.get("task") is not None:
            tasks.setdefault(example["task"], []).append(number)
    by_task = {
        name: {"rows": len(tasks[name]), **metrics_of(tasks[name])} for name in sorted(tasks)
    }
    return Evaluation(
        metrics_of(range(len(examples))), predictions, by_task if len(by_task) > 1 else {}
    )


def evaluation_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    *,
    options: EvaluationOptions = EvaluationOptions(),
) -> dict[str, float]:
    """Compute eval_loss alone, which is many times faster than `evaluate`.

    Raises:
        StopEvaluationError: As `evaluate`.
    """
    examples = [dict(row) for row in rows]

    def run_batch(numbers: list[int], batch: dict[str, Any]) -> _Outputs:
        return _Outputs(dict(zip(numbers, _losses(model, batch), strict=True)), {})

    outputs = _run_batches(model, tokenizer, examples, options, run_batch)
    return {"eval_loss": _mean_loss(outputs, range(len(examples)))}


def _mean_loss(outputs: _Outputs, numbers: Sequence[int]) -> float:
    pairs = [outputs.losses[number] for number in numbers]
    return sum(loss for loss, _ in pairs) / sum(count for _, count in pairs)


def _run_batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[dict[str, Any]],
    options: EvaluationOptions,
    run_batch: Callable[[list[int], dict[str, Any]], _Outputs],
) -> _Outputs:
    """`run_batch` on all examples, split among the processes; all outputs in each process."""
    import torch

    collate = Collator(tokenizer, multiple=padding_multiple(model.device.type))
    processes = options.processes

    def run(numbers: list[int]) -> _Outputs:
        batch = collate([examples[number] for number in numbers])
        return run_batch(numbers, {name: tensor.to(model.device) for name, tensor in batch.items()})

    lengths = [len(example["input_ids"]) for example in examples]
    batches = batches_by_length(lengths, options.batch_size, longest_first=True)
    own: list[_Outputs] = []
    stopped = False
    done = 0
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for index, numbers in enumerate(batches):
                done += len(numbers)
                if index % processes.world_size != processes.rank:
                    continue
                own += _halving(run, numbers, options.on_batch_halved)
                release_memory_per_shape(model.device.type)  # each new token is a new shape
                if options.on_progress is not None:
                    options.on_progress(done / len(examples))
    except StopEvaluationError:
        stopped = True
    finally:
        model.train(was_training)
    merged = _Outputs({}, {})
    for received in processes.gather(None if stopped else own):
        if received is None:
            raise StopEvaluationError
        for outputs in received:
            merged.losses.update(outputs.losses)
            merged.answers.update(outputs.answers)
    return merged


def _halving(
    run: Callable[[list[int]], _Outputs],
    numbers: list[int],
    on_batch_halved: Callable[[int], None] | None,
) -> list[_Outputs]:
    """`run` on the rows, in halves where all of them don't fit in memory."""
    from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

    try:
        return [run(numbers)]
    except RuntimeError as error:
        if len(numbers) == 1 or not should_reduce_batch_size(error):
            raise
    clear_device_cache(garbage_collection=True)
    if on_batch_halved is not None:
        on_batch_halved(len(numbers))
    middle = len(numbers) // 2
    halves = (numbers[:middle], numbers[middle:])
    return [outputs for half in halves for outputs in _halving(run, half, on_batch_halved)]


def _losses(model: PreTrainedModel, batch: dict[str, Any]) -> list[tuple[float, int]]:
    """Each row's summed cross-entropy of its labels, and their number, without padding."""
    import torch.nn.functional as F

    logits = model(**batch).logits.float()
    labels = batch["labels"]
    losses = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
    )
    sums = losses.view(labels.shape).double().sum(dim=1).tolist()
    counts = (labels != IGNORED_LABEL).sum(dim=1).tolist()
    return list(zip(sums, counts, strict=True))
