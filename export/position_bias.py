"""T5's relative position bias as a table by distance, for engines without buckets."""

from __future__ import annotations

import math

import numpy as np

from edge.export.source import SourceModel
from edge.runtime.artifact.manifest import Architecture
from edge.train.model.architecture import bias_name

# Added to masked scores. Finite, because -inf minus -inf is NaN in a softmax.
MASKED = -1e9


def encoder_bias_by_distance(source: SourceModel) -> np.ndarray:
    """Bias of the encoder's attention: float32 [2 × reach + 1, heads].

    If every layer has its own bias, those of all layers are side by side: [2 × reach + 1, layers ×
    heads].

    Row `key - query + reach`, with the difference clipped to ±reach. All positions beyond the
    maximum distance share the last bucket, so the table serves inputs of any length.
    """
    reach = source.architecture.relative_attention_max_distance
    distances = np.arange(-reach, reach + 1)
    rows = buckets(distances, source.architecture, bidirectional=True)
    return np.take(_biases(source, "encoder"), rows, axis=0)


def decoder_bias_by_distance(source: SourceModel) -> np.ndarray:
    """Bias of the decoder's self-attention: float32 [reach + 2, heads], or layers × heads.

    Row 0 masks keys after the query. Row `1 + query - key` is for keys up to the query, with the
    difference clipped to reach.
    """
    reach = source.architecture.relative_attention_max_distance
    distances = -np.arange(reach + 1)
    rows = buckets(distances, source.architecture, bidirectional=False)
    biases = _biases(source, "decoder")
    masked = np.full((1, biases.shape[1]), MASKED, dtype=np.float32)
    return np.concatenate([masked, biases[rows]])


def buckets(distances: np.ndarray, shape: Architecture, *, bidirectional: bool) -> np.ndarray:
    """The bucket of each distance key - query (int64 → int64, same shape).

    Source: Raffel et al. 2020 (arXiv:1910.10683), section 2.1, as Mesh TensorFlow implements it.
    Computed with torch in float32, as in transformers: another logarithm could round a distance
    at the border of a bucket differently.
    """
    import torch

    position = torch.from_numpy(np.asarray(distances, dtype=np.int64))
    count = shape.relative_attention_num_buckets
    first = torch.zeros_like(position)
    if bidirectional:
        count //= 2
        first = (position > 0).long() * count
        position = position.abs()
    else:
        position = -position.clamp(max=0)
    exact = count // 2
    ratio = torch.log(position.clamp(min=1).float() / exact)
    ratio = ratio / math.log(shape.relative_attention_max_distance / exact)
    large = (exact + (ratio * (count - exact)).long()).clamp(max=count - 1)
    found = first + torch.where(position < exact, position, large)
    return np.asarray(found.numpy())


def _biases(source: SourceModel, stack: str) -> np.ndarray:
    shape = source.architecture
    layers = shape.num_layers if stack == "encoder" else shape.num_decoder_layers
    names = [bias_name(stack, n) for n in range(layers if shape.has_bias_per_layer else 1)]
    return np.concatenate([source.tensor(name) for name in names], axis=1)
