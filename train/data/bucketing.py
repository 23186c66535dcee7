"""Which rows make a batch: rows of like length together, as many as a limit allows.

A batch is padded to its longest input and its longest target. The rows are therefore cut in two
again and again, by input or by target length, whichever leaves less padding, until each part is a
batch (a k-d tree: Bentley, "Multidimensional binary search trees", 1975).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_WASTE = 0.05  # of the slots of all batches, where the limit is a number of tokens

Lengths = Sequence[tuple[int, int]]  # tokens of input and target, </s> counted
Batch = list[int]  # row numbers


def plan_batches(
    lengths: Lengths, *, rows: int | None = None, tokens: int | None = None
) -> list[Batch]:
    """Batches of at most `rows` rows, or of at most `tokens` slots and little padding in all."""
    everything = list(range(len(lengths)))
    if not everything:
        return []
    if tokens is None:
        assert rows is not None
        return _by_rows(everything, lengths, rows)
    batches = _by_tokens(everything, lengths, tokens)
    real = _real(everything, lengths)
    return _halved(batches, lengths, lambda filled, _: filled - real > MAX_WASTE * filled)


def plan_as_many(lengths: Lengths, *, tokens: int, count: int) -> list[Batch]:
    """Exactly `count` batches of at most `tokens` slots, or a little more where it must be.

    For the same rows with slightly other lengths: an epoch should have as many steps as the others.
    `count` is at most the number of rows.
    """
    everything = list(range(len(lengths)))
    while len(batches := _by_tokens(everything, lengths, tokens)) > count:
        tokens += max(1, tokens // 100)
    return _halved(batches, lengths, lambda _, found: found < count)


def slots(batch: Batch, lengths: Lengths) -> int:
    """Rows × (longest input + longest target): what is computed for a batch."""
    longest_input = max(lengths[row][0] for row in batch)
    return len(batch) * (longest_input + max(lengths[row][1] for row in batch))


def _by_rows(batch: Batch, lengths: Lengths, size: int) -> list[Batch]:
    if len(batch) <= size:
        return [batch]
    count = -(-len(batch) // size)
    first, second = _cut(batch, count // 2 * size, lengths)
    return _by_rows(first, lengths, size) + _by_rows(second, lengths, size)


def _by_tokens(batch: Batch, lengths: Lengths, tokens: int) -> list[Batch]:
    if len(batch) == 1 or slots(batch, lengths) <= tokens:
        return [batch]
    # A little is set aside for padding, so that a part seldom comes out just too large.
    count = max(2, -(-int(_real(batch, lengths) * 1.03) // tokens))
    at = min(len(batch) - 1, max(1, round(len(batch) * (count // 2) / count)))
    first, second = _cut(batch, at, lengths)
    return _by_tokens(first, lengths, tokens) + _by_tokens(second, lengths, tokens)


def _halved(
    batches: list[Batch], lengths: Lengths, goes_on: Callable[[int, int], bool]
) -> list[Batch]:
    """The batches, those with most padding halved while `goes_on(slots of all, how many)`."""
    filled = sum(slots(batch, lengths) for batch in batches)
    numbers = itertools.count()  # makes every entry another one, so that no batches are compared

    def entry(batch: Batch) -> tuple[int, int, int, Batch]:
        padding = slots(batch, lengths) - _real(batch, lengths)
        return -padding, -len(batch), next(numbers), batch

    worst = [entry(batch) for batch in batches]
    heapq.heapify(worst)
    while goes_on(filled, len(worst)):
        *_, batch = heapq.heappop(worst)
        halves = _cut(batch, len(batch) // 2, lengths)
        filled += sum(slots(half, lengths) for half in halves) - slots(batch, lengths)
        for half in halves:
            heapq.heappush(worst, entry(half))
    return [batch for *_, batch in worst]


def _cut(batch: Batch, at: int, lengths: Lengths) -> tuple[Batch, Batch]:
    """The first `at` rows and the others, by the order that leaves less padding."""
    by_input: Callable[[int], tuple[int, int]] = lengths.__getitem__

    def by_target(row: int) -> tuple[int, int]:
        return lengths[row][::-1]

    halves = []
    for key in (by_input, by_target):
        ordered = sorted(batch, key=key)
        first, second = ordered[:at], ordered[at:]
        halves.append((slots(first, lengths) + slots(second, lengths), first, second))
    _, first, second = min(halves, key=lambda half: half[0])
    return first, second


def _real(batch: Batch, lengths: Lengths) -> int:
    return sum(lengths[row][0] + lengths[row][1] for row in batch)


@dataclass(frozen=True)
class Padding:
    """Shares of the slots that are padding, 0 to 1.

    `fixed` pads every row to the maximum lengths, `unsorted` takes rows by chance, as many as the
    bucketed batches have on average; `bucketed` is what training does.
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


def padding_of(batches: Sequence[Batch], lengths: Lengths, limits: tuple[int, int]) -> Padding:
    """What `batches` (of every row once) save; `limits` are the maximum lengths."""
    rows = list(range(len(lengths)))
    random.Random(0).shuffle(rows)
    size = max(1, round(len(rows) / len(batches)))
    unsorted = [rows[at : at + size] for at in range(0, len(rows), size)]
    real = _real(rows, lengths)
    fixed = len(rows) * sum(limits)
    waste = [1 - real / sum(slots(b, lengths) for b in plan) for plan in (unsorted, batches)]
    return Padding(1 - real / fixed, waste[0], waste[1], len(batches))
