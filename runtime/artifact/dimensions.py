"""Ranges of a T5's dimensions, checked wherever they come from a file."""

from __future__ import annotations

from collections.abc import Mapping

# Inclusive ranges, several times the largest T5 models. What costs memory or time is also bounded
# by the size of the weights: see `minimum_parameters`.
DIMENSIONS: Mapping[str, tuple[int, int]] = {
    "vocab_size": (1, 1 << 22),
    "d_model": (1, 1 << 16),
    "d_kv": (1, 1 << 12),
    "d_ff": (1, 1 << 20),
    "num_heads": (1, 1 << 10),
    "num_layers": (1, 1 << 10),
    "num_decoder_layers": (1, 1 << 10),
    "relative_attention_num_buckets": (2, 1 << 12),
    "relative_attention_max_distance": (1, 1 << 16),
}


def minimum_parameters(dimensions: Mapping[str, int]) -> int:
    """The number of weights of a T5 with these dimensions, biases and norms not counted.

    A file of weights that is too small for them is refused before anything is allocated.
    """
    d_model = dimensions["d_model"]
    attention = 4 * d_model * dimensions["num_heads"] * dimensions["d_kv"]
    feed_forward = 2 * d_model * dimensions["d_ff"]
    return (
        dimensions["vocab_size"] * d_model
        + dimensions["num_layers"] * (attention + feed_forward)
        + dimensions["num_decoder_layers"] * (2 * attention + feed_forward)
    )
