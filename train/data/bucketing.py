"""Batches of rows of similar length, as large as a limit allows.

A batch is padded to its longest input and its longest target. The rows are therefore bisected
recursively, by input or by target length, whichever leaves less padding, until each part is a
batch (a k-d tree: Bentley, "Multidimensional binary search trees", 1975).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_WASTE = 0.05  # ratio of padding in all batches together, where the limit is a number of tokens
_PADDING_ALLOWANCE = 1.03  # expected padded tokens per real token

Lengths = Sequence[tuple[int, int]]  # tokens of each row's input and target, </s> counted
Batch = list[int]  # row numbers


def plan_batches(
    lengths: Lengths, *, rows: int | None = None, tokens: int | None = None
) -> list[Batch]:
    """Batches that hold every row once, limited by rows or by padded tokens.

    Args:
        lengths: Input and target length of each row.
        rows: Most rows of a batch; needed without `tokens`.
        tokens: Most padded tokens of a batch. All batches together then hold at most `MAX_WASTE`
            padding.
    """
    everything = list(range(len(lengths)))
    if not everything:
        return []
    if tokens is None:
        assert rows is not None
        return _by_rows(everything, lengths, rows)
    batches = _by_tokens(everything, lengths, tokens)
    real = _real_tokens(everything, lengths)
    return _bisected(batches, lengths, lambda padded, _: padded - real > MAX_WASTE * padded)


def plan_fixed_count(lengths: Lengths, *, tokens: int, count: int) -> list[Batch]:
    """Exactly `count` batches of at most `tokens` padded tokens, or slightly more if necessary.

    Keeps the number of steps equal in all epochs when augmentation changes the lengths of rows.
    `count` is at most the number of rows.
    """
    everything = list(range(len(lengths)))
    while len(batches := _by_tokens(everything, lengths, tokens)) > count:
        tokens += max(1, tokens // 100)
    return _bisected(batches, lengths, lambda _, found: found < count)


def padded_tokens(batch: Batch, lengths: Lengths) -> int:
    """Rows × (longest input + longest target): the tokens that are computed for a batch."""
    longest_input = max(lengths[row][0] for row in batch)
    return len(batch) * (longest_input + max(lengths[row][1] for row in batch))


def _by_rows(batch: Batch, lengths: Lengths, size: int) -> list[Batch]:
    if len(batch) <= size:
        return [batch]
    count = -(-len(batch) // size)
    first, second = _cut(batch, count // 2 * size, lengths)
    return _by_rows(first, lengths, size) + _by_rows(second, lengths, size)


def _by_tokens(batch: Batch, lengths: Lengths, tokens: int) -> list[Batch]:
    if len(batch) == 1 or padded_tokens(batch, lengths) <= tokens:
        return [batch]
    # With an allowance for padding a part seldom turns out slightly too large.
    count = max(2, -(-int(_real_tokens(batch, lengths) * _PADDING_ALLOWANCE) // tokens))
    at = min(len(batch) - 1, max(1, round(len(batch) * (count // 2) / count)))
    first, second = _cut(batch, at, lengths)
    return _by_tokens(first, lengths, tokens) + _by_tokens(second, lengths, tokens)


def _bisected(
    batches: list[Batch], lengths: Lengths, goes_on: Callable[[int, int], bool]
) -> list[Batch]:
    """Bisect the batch with most padding while `goes_on(padded tokens of all, batches)`."""
    padded = sum(padded_tokens(batch, lengths) for batch in batches)
    numbers = itertools.count()  # a tie-breaker, so that batches themselves are never compared

    def entry(batch: Batch) -> tuple[int, int, int, Batch]:
        padding = padded_tokens(batch, lengths) - _real_tokens(batch, lengths)
        return -padding, -len(batch), next(numbers), batch

    worst = [entry(batch) for batch in batches]
    heapq.heapify(worst)
    while goes_on(padded, len(worst)):
        *_, batch = heapq.heappop(worst)
        halves = _cut(batch, len(batch) // 2, lengths)
        padded += sum(padded_tokens(half, lengths) for half in halves)
        padded -= padded_tokens(batch, lengths)
        for half in halves:
            heapq.heappush(worst, entry(half))
    return [batch for *_, batch in worst]


def _cut(batch: Batch, at: int, lengths: Lengths) -> tuple[Batch, Batch]:
    """The first `at` rows and the others, in the order that leaves less padding."""
    by_input: Callable[[int], tuple[int, int]] = lengths.__getitem__

    def by_target(row: int) -> tuple[int, int]:
        return lengths[row][::-1]

    halves = []
    for key in (by_input, by_target):
        ordered = sorted(batch, key=key)
        first, second = ordered[:at], ordered[at:]
        cost = padded_tokens(first, lengths) + padded_tokens(second, lengths)
        halves.append((cost, first, second))
    _, first, second = min(halves, key=lambda half: half[0])
    return first, second


def _real_tokens(batch: Batch, lengths: Lengths) -> int:
    return sum(lengths[row][0] + lengths[row][1] for row in batch)


@dataclass(frozen=True)
class Padding:
    """Ratios of padding among padded tokens, 0 to 1, for three ways to make batches.

    Attributes:
        fixed: Every row padded to the maximum lengths.
        unsorted: Random batches, with as many rows as the bucketed ones have on average.
        bucketed: Batches of rows of similar length, as in training.
        batches: How many bucketed batches there are.
    """

    fixed: float
    unsorted: float
    bucketed: float
    batches: int

    def __str__(self) -> str:
        return (
            f"padding: {self.bucketed:.1%} of the tokens, in {self.batches} batches by length"
            f" (unsorted {self.unsorted:.1%}, padded to the maximum lengths {self.fixed:.1%})"
        )


def measure_padding(batches: Sequence[Batch], lengths: Lengths, limits: tuple[int, int]) -> Padding:
    """Compare the padding of `batches`, which hold every row once, with simpler batching.

    Args:
        batches: The bucketed batches.
        lengths: Input and target length of each row.
        limits: Maximum input and target length.
    """
    rows = list(range(len(lengths)))
    random.Random(0).shuffle(rows)
    size = max(1, round(len(rows) / len(batches)))
    unsorted = [rows[at : at + size] for at in range(0, len(rows), size)]
    real = _real_tokens(rows, lengths)
    fixed = len(rows) * sum(limits)
    waste = [
        1 - real / sum(padded_tokens(batch, lengths) for batch in plan)
        for plan in (unsorted, batches)
    ]
    return Padding(1 - real / fixed, waste[0], waste[1], len(batches))
