"""The loss of training: cross-entropy of the labels, and what distillation and tagging add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from edge.train.data.collator import IGNORED_LABEL
from edge.train.model.tagging import TaggingLoss

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LabelLoss:
    """Cross-entropy summed over labels and divided by the number of labels of the optimizer step.

    T5 in transformers 5 averages over each batch and ignores the Trainer's `num_items_in_batch`, so
    with gradient accumulation its loss would be too large by that factor.

    Args:
        smoothing: Label smoothing, 0 to 1.
        teacher: Adds the divergence KL(teacher ‖ model) at each label.
        distill_ratio: Weight of that divergence in the loss, 0 to 1.
        tagging_weight: Weight of the tags' loss, which is added; 0 for none.
    """

    def __init__(
        self,
        smoothing: float,
        teacher: PreTrainedModel | None = None,
        distill_ratio: float = 0.5,
        tagging_weight: float = 0.0,
    ) -> None:
        self._smoothing, self._teacher = smoothing, teacher
        self._distill_ratio = distill_ratio
        self._tagging = TaggingLoss() if tagging_weight else None
        self._tagging_weight = tagging_weight
        self._teacher_logits: torch.Tensor | None = None

    def prepare(self, inputs: dict[str, Any]) -> None:
        """Tag a batch, and run the teacher on it.

        Its tensors are input_ids, attention_mask, decoder_input_ids and labels.
        """
        if self._tagging is not None:
            self._tagging.prepare(inputs)
        if self._teacher is None:
            return
        names = ("input_ids", "attention_mask", "decoder_input_ids")
        with torch.no_grad():
            outputs = self._teacher(**{name: inputs[name] for name in names})
        self._teacher_logits = outputs.logits.float()

    def __call__(
        self,
        outputs: Any,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The loss of a batch: logits (rows, target length, vocabulary), labels (rows, length).

        `num_items_in_batch` is the number of labels of the optimizer step, over all micro-batches.
        """
        logits = outputs.logits.float().flatten(0, 1)
        flat = labels.flatten()
        total = F.cross_entropy(
            logits,
            flat,
            ignore_index=IGNORED_LABEL,
            reduction="sum",
            label_smoothing=self._smoothing,
        )
        if self._teacher_logits is not None:
            real = flat != IGNORED_LABEL
            divergence = F.kl_div(
                F.log_softmax(logits[real], dim=-1),
                F.log_softmax(self._teacher_logits.flatten(0, 1)[real], dim=-1),
                reduction="sum",
                log_target=True,
            )
            total = (1.0 - self._distill_ratio) * total + self._distill_ratio * divergence
            self._teacher_logits = None
        count = (flat != IGNORED_LABEL).sum()
        if self._tagging is not None:
            # A mean, which counts as often as the batch has labels.
            total = total + self._tagging_weight * count * self._tagging(outputs)
        return total / (num_items_in_batch or count)
