"""How good a model is on held-out rows: eval_loss by teacher forcing, metrics of what it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.train.data import IGNORED_LABEL, Collator
from edge.train.metrics import fit_band_eval_loss, fit_band_rouge_l, text_metrics

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Evaluation:
    """Figures (eval_loss in nats per target token) and the prediction of each row, in order."""

    metrics: dict[str, float]
    predictions: list[str]

    @property
    def bands(self) -> dict[str, str]:
        return {
            "eval_loss": fit_band_eval_loss(self.metrics["eval_loss"]),
            "rouge_l": fit_band_rouge_l(self.metrics["rouge_l"]),
        }


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    *,
    batch_size: int = 64,
    max_new_tokens: int = 128,
    on_fraction: Callable[[float], None] | None = None,
) -> Evaluation:
    """eval_loss, exact match, ROUGE-L and BLEU of greedy answers to tokenised rows.

    `rows` has the columns of `edge.train.data.tokenize`. The model stays on its device and in its
    precision; `on_fraction` hears how much is done, 0 to 1.
    """
    examples = [dict(row) for row in rows]
    predictions = [""] * len(examples)
    loss_sum, label_count = 0.0, 0
    for numbers, batch in _batches(model, tokenizer, examples, batch_size, on_fraction):
        batch_loss, batch_labels = _loss(model, batch)
        loss_sum, label_count = loss_sum + batch_loss, label_count + batch_labels
        answers = _generate(model, tokenizer, batch, max_new_tokens)
        for number, answer in zip(numbers, answers, strict=True):
            predictions[number] = answer
    references = [example["target"] for example in examples]
    metrics = {"eval_loss": loss_sum / label_count, **text_metrics(predictions, references)}
    return Evaluation(metrics, predictions)


def evaluation_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    *,
    batch_size: int = 64,
    on_fraction: Callable[[float], None] | None = None,
) -> dict[str, float]:
    """eval_loss alone, which takes a fraction of the time that writing answers takes."""
    examples = [dict(row) for row in rows]
    loss_sum, label_count = 0.0, 0
    for _, batch in _batches(model, tokenizer, examples, batch_size, on_fraction):
        batch_loss, batch_labels = _loss(model, batch)
        loss_sum, label_count = loss_sum + batch_loss, label_count + batch_labels
    return {"eval_loss": loss_sum / label_count}


def _batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[dict[str, Any]],
    batch_size: int,
    on_fraction: Callable[[float], None] | None,
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Numbers of examples and their batch on the model's device; the model is in eval mode."""
    import torch

    collate = Collator(tokenizer)
    done = 0
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for numbers in _by_length(examples, batch_size):
                batch = collate([examples[number] for number in numbers])
                yield numbers, {name: tensor.to(model.device) for name, tensor in batch.items()}
                done += len(numbers)
                if on_fraction is not None:
                    on_fraction(done / len(examples))
    finally:
        model.train(was_training)


def _by_length(examples: Sequence[dict[str, Any]], batch_size: int) -> Iterator[list[int]]:
    order = sorted(range(len(examples)), key=lambda number: -len(examples[number]["input_ids"]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _loss(model: PreTrainedModel, batch: dict[str, Any]) -> tuple[float, int]:
    """Summed cross-entropy of the labels, and how many there are; padding is left out."""
    import torch.nn.functional as F

    logits = model(**batch).logits.float()
    labels = batch["labels"]
    total = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
    )
    return float(total), int((labels != IGNORED_LABEL).sum())


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
