"""Roofline of a model's decoder: the least time that reading its weights from memory takes.

A decoder step at batch 1 multiplies every weight once, so memory bandwidth limits it, not
arithmetic (Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for
multicore architectures", 2009). A model that fits into the last-level cache can be faster.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edge.runtime.artifact.manifest import Architecture

# Far larger than the last-level cache that one core can use.
_BUFFER_BYTES = 512 << 20
_REPEATS = 9
_BLOCK = 128  # weights that share a scale in edge's block quantization
_SCALE_BYTES = 4  # float32


@dataclass(frozen=True)
class Roofline:
    """The least time of an answer.

    Attributes:
        bits: per decoder weight.
        bytes_per_token: decoder weights that are read for one new token.
        encoder_ms: what happens once per answer.
        ms: the whole answer.
    """

    bits: int
    bytes_per_token: int
    encoder_ms: float
    ms: float


def read_bandwidth(
    threads: int, *, buffer_bytes: int = _BUFFER_BYTES, repeats: int = _REPEATS
) -> float:
    """Bytes per second that `threads` threads together read from memory: the median of several."""
    buffer = np.ones(buffer_bytes // 8, np.uint64)
    chunks = np.array_split(buffer, threads)
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(np.bitwise_or.reduce, chunks))  # warm-up: starts threads, maps pages
        for _ in range(repeats):
            started = time.perf_counter()
            # An "or" takes next to no time compared with reading.
            list(pool.map(np.bitwise_or.reduce, chunks))
            rates.append(buffer.nbytes / (time.perf_counter() - started))
    return float(np.median(rates))


def decoder_bytes_per_token(shape: Architecture, bits: int, *, block: int = _BLOCK) -> int:
    """Bytes of decoder weights that one new token reads, scales included.

    Counted: self-attention's four projections, cross-attention's query and output (its keys and
    values are computed once per answer), the feed-forward layer, lm_head, one row of the embedding,
    and the norms in float32. Every matrix has `bits` per weight and one float32 scale per `block`.
    """
    attention = 6 * shape.d_model * shape.inner_dim
    feed_forward = (3 if shape.is_gated_act else 2) * shape.d_model * shape.d_ff
    weights = (
        shape.num_decoder_layers * (attention + feed_forward)
        + shape.vocab_size * shape.d_model
        + shape.d_model
    )
    scales = -(-weights // block) * _SCALE_BYTES
    norms = (3 * shape.num_decoder_layers + 1) * shape.d_model * 4
    return -(-weights * bits // 8) + scales + norms


def roofline_of(
    shape: Architecture,
    *,
    bits: int,
    bandwidth: float,
    new_tokens: int,
    encoder_ms: float = 0.0,
) -> Roofline:
    """The roofline of one answer.

    Args:
        shape: the model's shape.
        bits: per weight of the decoder's matrices.
        bandwidth: bytes per second, of `read_bandwidth`.
        new_tokens: length of the answer.
        encoder_ms: milliseconds of the encoder and whatever else happens once per answer.
    """
    size = decoder_bytes_per_token(shape, bits)
    return Roofline(bits, size, encoder_ms, encoder_ms + size * new_tokens / bandwidth * 1000)
