"""A model with fewer decoder layers, taught by the full one.

A decoder runs once per answer token, the encoder once per input: the decoder's depth decides how
fast a T5 answers. The student keeps evenly spaced layers of the decoder (as DistilBART, Shleifer
and Rush 2020) and learns from the teacher twice, as in Kim and Rush, "Sequence-Level Knowledge
Distillation" (2016): its distribution at every token (word level), and its own answers as further
targets (sequence level).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from edge.runtime.errors import UsageError
from edge.train.data import IGNORED_LABEL, Pair

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from edge.train.model.loading import Trainable


def evenly_spaced(layers: int, wanted: int) -> list[int]:
    """Which of `layers` to keep: the first, the last (if two or more), and evenly between.

    The first is always kept: it holds the position bias that all others use.
    """
    if wanted == 1:
        return [0]
    return [round(number * (layers - 1) / (wanted - 1)) for number in range(wanted)]


def cut_decoder(trainable: Trainable, wanted: int) -> PreTrainedModel:
    """Leave `trainable` with `wanted` decoder layers; returns the full model, frozen.

    Raises:
        UsageError: the model has no more layers than that.
    """
    teacher: Any = trainable.model
    layers = len(teacher.decoder.block)
    if wanted >= layers:
        raise UsageError(
            f"--decoder-layers {wanted}: {trainable.name} has {layers}; choose from 1 to"
            f" {layers - 1}"
            if layers > 1
            else f"--decoder-layers {wanted}: {trainable.name} has a single one"
        )
    student = copy.deepcopy(teacher)
    kept = [student.decoder.block[number] for number in evenly_spaced(layers, wanted)]
    student.decoder.block = torch.nn.ModuleList(kept)
    for place, block in enumerate(kept):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = place  # where its keys and values go in the cache
    student.config.num_decoder_layers = wanted
    student.decoder.config.num_layers = wanted
    trainable.model = student
    teacher.requires_grad_(False)
    teacher.eval()
    return teacher


def teacher_pairs(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    *,
    max_source_length: int,
    max_new_tokens: int,
    batch_size: int,
) -> list[Pair]:
    """The inputs with the teacher's greedy answers, where these are not the targets already."""
    order = sorted(range(len(pairs)), key=lambda number: len(pairs[number].source))
    found: list[Pair] = []
    for start in range(0, len(order), batch_size):
        part = [pairs[number] for number in order[start : start + batch_size]]
        batch = tokenizer(
            [pair.source for pair in part],
            padding=True,
            truncation=True,
            max_length=max_source_length,
            return_tensors="pt",
        ).to(teacher.device)
        with torch.inference_mode():
            ids = teacher.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=max_new_tokens,
                num_beams=1,
                do_sample=False,
            )
        answers = tokenizer.batch_decode(ids, skip_special_tokens=True)
        found += [
            Pair(pair.source, answer)
            for pair, answer in zip(part, answers, strict=True)
            if answer.strip() and answer != pair.target
        ]
    return found


class LabelLoss:
    """Cross-entropy summed over labels and divided by the labels of the whole optimizer step.

    T5 in transformers 5 averages each batch by itself and ignores the count that the Trainer gives
    it, so with gradient accumulation its loss would be too large by that factor.

    With a teacher, `share` of the loss is the divergence KL(teacher ‖ model) at each label.
    """

    def __init__(
        self, smoothing: float, teacher: PreTrainedModel | None = None, share: float = 0.5
    ) -> None:
        self._smoothing, self._teacher, self._share = smoothing, teacher, share
        self._taught: torch.Tensor | None = None

    def prepare(self, inputs: dict[str, Any]) -> None:
        """Ask the teacher about a batch (input_ids, attention_mask, decoder_input_ids)."""
        if self._teacher is None:
            return
        names = ("input_ids", "attention_mask", "decoder_input_ids")
        with torch.no_grad():
            self._taught = self._teacher(**{name: inputs[name] for name in names}).logits.float()

    def __call__(
        self,
        outputs: Any,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        logits = outputs.logits.float().flatten(0, 1)
        flat = labels.flatten()
        total = F.cross_entropy(
            logits,
            flat,
            ignore_index=IGNORED_LABEL,
            reduction="sum",
            label_smoothing=self._smoothing,
        )
        if self._taught is not None:
            real = flat != IGNORED_LABEL
            divergence = F.kl_div(
                F.log_softmax(logits[real], dim=-1),
                F.log_softmax(self._taught.flatten(0, 1)[real], dim=-1),
                reduction="sum",
                log_target=True,
            )
            total = (1.0 - self._share) * total + self._share * divergence
            self._taught = None
        return total / (num_items_in_batch or (labels != IGNORED_LABEL).sum())
