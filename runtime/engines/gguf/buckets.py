"""Relative position buckets as llama.cpp computes them.

llama.cpp's T5 has no setting for relative_attention_max_distance:
`llama_relative_position_bucket` (src/llama-graph.cpp, src/llama-context.cpp) fixes it at 128. The
exporter fills the bias table for that function; the engine checks that no distance is outside it.
"""

from __future__ import annotations

import math

import numpy as np

LLAMA_MAX_DISTANCE = 128


def llama_buckets(buckets: int, distances: int, *, bidirectional: bool) -> np.ndarray:
    """The bucket of each distance 0 … distances - 1 toward earlier positions.

    Toward later positions, a bidirectional stack adds buckets // 2. A bucket may be outside the
    table; llama.cpp does not check.

    Args:
        buckets: Number of rows of the bias table.
        distances: Number of distances.
        bidirectional: Whether the stack is an encoder.

    Returns:
        int64 array [distances].
    """
    exact, large = large_buckets(buckets, distances, bidirectional=bidirectional)
    return np.where(np.arange(distances) < exact, np.arange(distances), np.floor(large)).astype(
        np.int64
    )


def large_buckets(buckets: int, distances: int, *, bidirectional: bool) -> tuple[int, np.ndarray]:
    """The logarithmic buckets before rounding down.

    Args:
        buckets: Number of rows of the bias table.
        distances: Number of distances.
        bidirectional: Whether the stack is an encoder.

    Returns:
        The number of distances with a separate bucket, and for every distance its logarithmic
        bucket (float64 [distances]), which applies from that number on.
    """
    count = buckets // 2 if bidirectional else buckets
    exact = count // 2
    if exact < 1 or exact == LLAMA_MAX_DISTANCE:  # llama.cpp would divide by zero
        return exact, np.full(distances, -1.0)
    ratio = np.maximum(np.arange(distances, dtype=np.float64), 1.0) / exact
    logarithm = np.log(ratio.astype(np.float32).astype(np.float64)).astype(np.float32)
    step = np.float32(count - exact) * logarithm  # float32, as in C
    large = (exact + step.astype(np.float64) / math.log(LLAMA_MAX_DISTANCE / exact)).astype(
        np.float32
    )
    return exact, np.minimum(large.astype(np.float64), count - 1)


def inside_table(buckets: int, distances: int) -> bool:
    """Whether all distances below `distances` have a row in a table of `buckets` rows."""
    for bidirectional in (True, False):
        found = llama_buckets(buckets, distances, bidirectional=bidirectional)
        limit = buckets // 2 if bidirectional else buckets
        if found.size and (found.min() < 0 or found.max() >= limit):
            return False
    return True
