"""Relative position biases, rearranged for llama.cpp's bucket boundaries.

llama.cpp reads the number of buckets from the file but fixes the maximum distance at 128 (see
`edge.runtime.engines.gguf.buckets`). For a model with another maximum distance, the table gets more
rows: with enough buckets, each of llama.cpp's lies within one of the model's and holds its values,
so that the bias is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.export.position_bias import buckets as model_buckets
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.engines.gguf.buckets import LLAMA_MAX_DISTANCE, large_buckets, llama_buckets

_COMPARED_DISTANCES = 1 << 14  # beyond it, all distances share the last bucket
_LONGEST = 1 << 12  # tokens, for models that no small table fits
_AMBIGUOUS = 1e-4  # so close to an integer, rounding may go either way


@dataclass(frozen=True)
class BiasTables:
    """Bias tables for llama.cpp.

    Attributes:
        encoder, decoder: float32 [buckets, heads].
        longest: the largest number of tokens for which they are exact, or None for any number.
    """

    encoder: np.ndarray
    decoder: np.ndarray
    longest: int | None

    @property
    def buckets(self) -> int:
        """The number of rows of each table."""
        return len(self.encoder)


def bias_tables(shape: Architecture, encoder: np.ndarray, decoder: np.ndarray) -> BiasTables:
    """Rearrange the tables of a model's encoder and decoder, [num_buckets, heads] each."""
    count = shape.relative_attention_num_buckets
    # Below 2 × 128: more buckets would be exact up to distance 128, and llama.cpp divide by zero.
    for buckets in (count, *range(count + 2, 2 * LLAMA_MAX_DISTANCE, 2)):
        rows = [
            _rows(
                shape,
                buckets,
                _COMPARED_DISTANCES,
                bidirectional=bidirectional,
                strict=buckets != count,
            )
            for bidirectional in (True, False)
        ]
        if rows[0] is not None and rows[1] is not None:
            return BiasTables(_fill(encoder, rows[0]), _fill(decoder, rows[1]), None)
    buckets = 4 * _LONGEST  # an exact bucket for every distance up to the longest input
    rows = [
        _rows(shape, buckets, _LONGEST, bidirectional=bidirectional, strict=False)
        for bidirectional in (True, False)
    ]
    assert rows[0] is not None
    assert rows[1] is not None
    return BiasTables(_fill(encoder, rows[0]), _fill(decoder, rows[1]), _LONGEST)


def _rows(
    shape: Architecture, buckets: int, distances: int, *, bidirectional: bool, strict: bool
) -> np.ndarray | None:
    """The model's bucket for each of llama.cpp's, -1 if unused.

    None if one of llama.cpp's buckets would need two of the model's, or, with `strict`, if that
    depends on rounding.
    """
    wanted = model_buckets(-np.arange(distances), shape, bidirectional=bidirectional)
    found = llama_buckets(buckets, distances, bidirectional=bidirectional)
    if strict:
        exact, large = large_buckets(buckets, distances, bidirectional=bidirectional)
        inner = np.arange(distances) >= exact
        for shift in (-_AMBIGUOUS, _AMBIGUOUS):
            found = np.append(found, np.floor(large + shift)[inner].astype(np.int64))
        wanted = np.concatenate([wanted, wanted[inner], wanted[inner]])
    half = buckets // 2 if bidirectional else buckets
    found = np.minimum(found, half - 1)
    if found.min() < 0:
        return None
    rows = np.full(half, -1, dtype=np.int64)
    rows[found] = wanted
    if (rows[found] != wanted).any():
        return None
    if not bidirectional:
        return rows
    # The second half is for later positions.
    later = np.where(rows < 0, -1, rows + shape.relative_attention_num_buckets // 2)
    return np.concatenate([rows, later, np.full(buckets - 2 * half, -1, dtype=np.int64)])


def _fill(bias: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.where(rows[:, None] < 0, np.float32(0), bias[np.maximum(rows, 0)]).astype(np.float32)
