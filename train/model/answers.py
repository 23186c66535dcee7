"""Answers of a transformers model, generated with complete settings and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge.runtime.options import GenerationOptions
from edge.runtime.text.stop_strings import cut_at_stop
from edge.train.model.generation_config import only_settings, transformers_config

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


def decoder_start(model: PreTrainedModel) -> int:
    """The id that the decoder starts with: that of the generation settings, or of the model."""
    settings: Any = model.generation_config
    shape: Any = model.config
    start: int = settings.decoder_start_token_id or shape.decoder_start_token_id or 0
    return start


def generate_ids(
    model: PreTrainedModel,
    batch: Mapping[str, torch.Tensor],
    config: GenerationConfig,
    *,
    seed: int | None = None,
    **more: Any,
) -> torch.Tensor:
    """Token ids of answers, generated with `config` alone.

    Args:
        model: The model.
        batch: input_ids and attention_mask, both [rows, tokens], on the model's device.
        config: The complete settings.
        seed: Of the random choices. The caller's random state stays as it is. None for none.
        more: Further arguments of `generate`.

    Returns:
        [rows x num_return_sequences, tokens], the start token first.
    """
    import torch

    generate: Any = model.generate
    with (
        torch.random.fork_rng(enabled=seed is not None),
        torch.inference_mode(),
        only_settings(model, config),
    ):
        if seed is not None:
            torch.manual_seed(seed)
        ids: torch.Tensor = generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            generation_config=config,
            **more,
        )
    return ids


def generate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: dict[str, Any],
    generation: GenerationOptions,
    end_token_ids: tuple[int, ...] = (),
) -> list[str]:
    """The answer to each row of a batch, the best one if there are several.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        batch: input_ids and attention_mask, both [rows, tokens], on the model's device.
        generation: How answers are generated.
        end_token_ids: The ids that end an answer; empty for the tokenizer's eos.
    """
    shape: Any = model.config
    config = transformers_config(
        dataclasses.replace(generation, num_return_sequences=1),
        pad=shape.pad_token_id,
        end=end_token_ids or (tokenizer.eos_token_id,),
        start=decoder_start(model),
        unused=range(len(tokenizer), shape.vocab_size),
    )
    seed = (generation.seed or 0) if generation.do_sample else None
    ids = generate_ids(model, batch, config, seed=seed)
    texts: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [cut_at_stop(text, generation.stop_strings)[0] for text in texts]
