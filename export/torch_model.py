"""transformers' model over weights in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edge.train.model.architecture import HEAD

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def torch_model_of(config: PretrainedConfig, weights: Mapping[str, np.ndarray]) -> PreTrainedModel:
    """transformers' model in float32 and eval mode, which shares memory with the weights.

    Args:
        config: transformers' configuration.
        weights: The state dict, float32; without `lm_head.weight` the head is the embedding.
    """
    import torch
    from transformers import AutoModelForSeq2SeqLM

    with torch.device("meta"):  # allocates nothing
        model = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
    with torch.inference_mode(False):  # a caller's would make weights that give no gradients
        state = {name: torch.from_numpy(array) for name, array in weights.items()}
        model.load_state_dict(state, strict=False, assign=True)
        model.encoder.embed_tokens.weight = model.shared.weight
        model.decoder.embed_tokens.weight = model.shared.weight
        head = state.get(HEAD)
        model.lm_head.weight = model.shared.weight if head is None else torch.nn.Parameter(head)
    return model.requires_grad_(False).eval()
