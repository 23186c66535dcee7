"""The relative position bias, rearranged for the distances at which llama.cpp changes buckets.

llama.cpp takes the number of buckets from the file but fixes the largest distance at 128 (see
`edge.runtime.engines.gguf.buckets`). For a model trained with another one the table is written with more
rows: with enough buckets, each of llama.cpp's lies within one of the model's, and holds its values.
Nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.export.position_bias import buckets as model_buckets
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.engines.gguf.buckets import LLAMA_MAX_DISTANCE, large_buckets, llama_buckets

_HORIZON = 1 << 14  # distances that are compared; beyond it nothing changes any more
_LONGEST = 1 << 12  # tokens, for a model that no small table fits
_AMBIGUOUS = 1e-4  # so close to a whole number, rounding may fall either way


@dataclass(frozen=True)
class BiasTables:
    """Bias tables for llama.cpp: `encoder` and `decoder` are [buckets, heads], float32.

    `longest` is the largest number of tokens for which they hold, or None for any number.
    """

    encoder: np.ndarray
    decoder: np.ndarray
    longest: int | None

    @property
    def buckets(self) -> int:
        return len(self.encoder)


def bias_tables(shape: Architecture, encoder: np.ndarray, decoder: np.ndarray) -> BiasTables:
    """Rearrange a model's two tables [num_buckets, heads] for llama.cpp."""
    own = shape.relative_attention_num_buckets
    # Below 2 × 128, no stack has an exact bucket for distance 128, where llama.cpp would divide
    # by zero.
    for buckets in (own, *range(own + 2, 2 * LLAMA_MAX_DISTANCE, 2)):
        rows = [
            _rows(shape, buckets, _HORIZON, bidirectional=bidirectional, strict=buckets != own)
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
    """For each of llama.cpp's buckets the model's bucket, -1 where unused; None where one of
    llama.cpp's would need two. `strict` also refuses what hangs on rounding."""
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
