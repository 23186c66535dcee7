"""How the time of an answer grows with its length and with the input's length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge.bench.engines.random_ids import Rows
from edge.bench.engines.step_time import step_ms

NEW_TOKENS = (16, 32, 64, 128)
INPUT_TOKENS = (16, 32, 128, 512)

_MIN_MS = 1e-6  # noise can make a difference of medians negative
_Point = tuple[Rows, int]


@dataclass(frozen=True)
class ScalingPoint:
    """Medians in milliseconds: the whole answer, an answer of one token, each further token."""

    input_tokens: int
    new_tokens: int
    ms: float
    first_ms: float
    per_token_ms: float


@dataclass(frozen=True)
class Scaling:
    """One engine's points: answers of growing length, and inputs of growing length."""

    name: str
    by_new_tokens: list[ScalingPoint]
    by_input_tokens: list[ScalingPoint]

    @property
    def flatness(self) -> float:
        """The slowest time per token over the fastest, among answer lengths; 1 is flat."""
        times = [max(point.per_token_ms, _MIN_MS) for point in self.by_new_tokens]
        return max(times) / min(times)


def scaling_points(ids: Callable[[int], Rows], input_tokens: int, new_tokens: int) -> list[_Point]:
    """What is measured: one length grows, the other is as in the main table.

    Args:
        ids: gives a source of a length.
        input_tokens: of the main table.
        new_tokens: of the main table.
    """
    points = [(ids(input_tokens), length) for length in NEW_TOKENS]
    points += [(ids(length), new_tokens) for length in INPUT_TOKENS]
    return list(dict.fromkeys(points))


def scaling_table(
    name: str, points: Sequence[_Point], times: Mapping[_Point, Sequence[float]]
) -> Scaling:
    """The points of one engine from its times in milliseconds.

    Args:
        name: of the engine.
        points: of `scaling_points`.
        times: of every point, and of the same with one new token.
    """
    found = []
    for rows, new_tokens in points:
        ms, first = (float(np.median(times[rows, length])) for length in (new_tokens, 1))
        found.append(
            ScalingPoint(len(rows[0]), new_tokens, ms, first, step_ms(ms, first, new_tokens))
        )
    common = points[-1][1]
    by_input = [point for point in found if point.new_tokens == common]
    return Scaling(
        name, found[: len(NEW_TOKENS)], sorted(by_input, key=lambda point: point.input_tokens)
    )
