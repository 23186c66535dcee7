"""Roofline of a model: the least time that reading its weights and its arithmetic take.

A decoder step at batch 1 multiplies every weight once, so memory bandwidth limits it. The encoder,
and a step of many rows, are limited by arithmetic (Williams, Waterman and Patterson, "Roofline: an
insightful visual performance model for multicore architectures", 2009). A model that fits into the
last-level cache can be faster.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
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
    """The least time of a batch of answers.

    Attributes:
        bits: per decoder weight.
        batch: answers that are generated together.
        bytes_per_token: decoder weights that are read for one new token of all answers.
        once_macs: multiply-adds of an answer's encoder and of its cross-attention's keys and
            values.
        token_macs: multiply-adds with decoder weights, for one new token of one answer.
        once_ms: the time of `once_macs` for the batch.
        token_ms: the time of one new token of all answers: reading or arithmetic, whichever is
            longer.
        ms: the whole batch.
        answers_per_second: batch ÷ ms.
    """

    bits: int
    batch: int
    bytes_per_token: int
    once_macs: int
    token_macs: int
    once_ms: float
    token_ms: float
    ms: float
    answers_per_second: float


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
    weights = decoder_macs_per_token(shape) + shape.d_model
    scales = -(-weights // block) * _SCALE_BYTES
    norms = (3 * shape.num_decoder_layers + 1) * shape.d_model * 4
    return -(-weights * bits // 8) + scales + norms


def decoder_macs_per_token(shape: Architecture) -> int:
    """Multiply-adds with decoder weights for one new token of one answer: each weight once.

    Attention's own products are left out: they are small, and grow with the lengths.
    """
    attention = 6 * shape.d_model * shape.inner_dim
    layers = shape.num_decoder_layers * (attention + _feed_forward(shape))
    return layers + shape.vocab_size * shape.d_model


def once_macs(shape: Architecture, input_tokens: int) -> int:
    """Multiply-adds that happen once per answer.

    Counted: the encoder's projections, its attention (scores and weighted sums), its feed-forward
    layers, and the keys and values of the decoder's cross-attention.
    """
    projection = shape.d_model * shape.inner_dim
    attention = 4 * projection + 2 * input_tokens * shape.inner_dim
    encoder = shape.num_layers * (attention + _feed_forward(shape))
    return input_tokens * (encoder + shape.num_decoder_layers * 2 * projection)


def _feed_forward(shape: Architecture) -> int:
    return (3 if shape.is_gated_act else 2) * shape.d_model * shape.d_ff


def roofline_of(
    shape: Architecture,
    *,
    bits: int,
    bandwidth: float,
    macs_per_second: float,
    input_tokens: int,
    new_tokens: int,
    batch: int = 1,
) -> Roofline:
    """The roofline of a batch of answers.

    Args:
        shape: the model's shape.
        bits: per weight of the decoder's matrices.
        bandwidth: bytes per second, of `read_bandwidth`.
        macs_per_second: multiply-adds per second, of `edge.bench.engines.matrix_rate`.
        input_tokens: length of each input.
        new_tokens: length of each answer.
        batch: answers that are generated together.
    """
    size, token_macs = decoder_bytes_per_token(shape, bits), decoder_macs_per_token(shape)
    once = once_macs(shape, input_tokens)
    once_ms = batch * once / macs_per_second * 1000
    token_ms = max(size / bandwidth, batch * token_macs / macs_per_second) * 1000
    ms = once_ms + new_tokens * token_ms
    return Roofline(bits, batch, size, once, token_macs, once_ms, token_ms, ms, batch / ms * 1000)


def rooflines(
    shape: Architecture,
    all_bits: Iterable[int],
    *,
    bandwidth: float,
    macs_per_second: float,
    input_tokens: int,
    new_tokens: int,
    batch: int = 1,
) -> dict[int, Roofline]:
    """The roofline of each precision, by bits; empty if a rate is 0, that is, not measured."""
    if not bandwidth or not macs_per_second:
        return {}
    return {
        bits: roofline_of(
            shape,
            bits=bits,
            bandwidth=bandwidth,
            macs_per_second=macs_per_second,
            input_tokens=input_tokens,
            new_tokens=new_tokens,
            batch=batch,
        )
        for bits in sorted(set(all_bits))
    }
