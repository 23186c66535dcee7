"""Distillation of a model into one with fewer decoder layers.

The decoder runs once per output token and the encoder once per input, so the decoder's depth
dominates a T5's latency. The student keeps evenly spaced decoder layers of the teacher (as in
DistilBART, Shleifer and Rush 2020). It learns from the teacher in two ways (Kim and Rush,
"Sequence-Level Knowledge Distillation", 2016): from its distribution at every token (word level),
and from its answers as additional targets (sequence level).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from edge.runtime.errors import UsageError
from edge.runtime.inference.batching import batches_by_length
from edge.train.data.pairs import Pair
from edge.train.model.answers import generate_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from edge.runtime.options import GenerationOptions
    from edge.train.model.loading import Trainable


def evenly_spaced(layers: int, wanted: int) -> list[int]:
    """Numbers of the layers to keep: the first, the last (if two or more), and evenly between.

    The first layer holds the relative position bias that all others use.
    """
    if wanted == 1:
        return [0]
    return [round(number * (layers - 1) / (wanted - 1)) for number in range(wanted)]


def cut_decoder(trainable: Trainable, wanted: int) -> PreTrainedModel:
    """Reduce `trainable` to `wanted` decoder layers.

    Returns:
        The full model, frozen and in evaluation mode.

    Raises:
        UsageError: The model does not have more layers than that.
    """
    teacher: Any = trainable.model
    layers = len(teacher.decoder.block)
    if wanted >= layers:
        raise UsageError(
            f"--decoder-layers {wanted}: {trainable.name} has {layers} decoder layers; choose from"
            f" 1 to {layers - 1}"
            if layers > 1
            else f"--decoder-layers {wanted}: {trainable.name} has only one decoder layer"
        )
    student = copy.deepcopy(teacher)
    kept = [student.decoder.block[number] for number in evenly_spaced(layers, wanted)]
    student.decoder.block = torch.nn.ModuleList(kept)
    for index, block in enumerate(kept):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index  # of its keys and values in the cache
    student.config.num_decoder_layers = wanted
    student.decoder.config.num_layers = wanted
    trainable.model = student
    full: PreTrainedModel = teacher.requires_grad_(False).eval()
    return full


def teacher_pairs(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    *,
    generation: GenerationOptions,
    end_token_ids: tuple[int, ...] = (),
    max_source_length: int,
    max_target_length: int,
    batch_size: int,
) -> list[Pair]:
    """Pairs of each input and the teacher's best answer, where it differs from the target.

    The answers are those that training's evaluation of the teacher sees: with its beams, penalties
    and stop strings. Nothing is sampled, so that the student learns the teacher's best answer (the
    mode of its distribution, as in Kim and Rush).

    Args:
        teacher: The full model.
        tokenizer: Its tokenizer.
        pairs: The training pairs.
        generation: How the teacher's answers are generated.
        end_token_ids: The ids that end an answer; empty for the tokenizer's eos.
        max_source_length: Inputs are cut to so many tokens.
        max_target_length: Answers have at most so many tokens.
        batch_size: Rows that are answered at once.
    """
    options = generation.override(
        {
            "do_sample": False,
            "num_return_sequences": 1,
            "max_new_tokens": min(generation.max_new_tokens, max_target_length),
        }
    )
    found: list[Pair] = []
    for numbers in batches_by_length([len(pair.source) for pair in pairs], batch_size):
        part = [pairs[number] for number in numbers]
        batch = tokenizer(
            [pair.source for pair in part],
            padding=True,
            truncation=True,
            max_length=max_source_length,
            return_tensors="pt",
        ).to(teacher.device)
        answers = generate_texts(teacher, tokenizer, batch, options, end_token_ids)
        found += [
            Pair(pair.source, answer)
            for pair, answer in zip(part, answers, strict=True)
            if answer.strip() and answer != pair.target
        ]
    return found
