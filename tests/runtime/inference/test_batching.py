"""Batches of rows of similar length."""

from __future__ import annotations

import pytest

from edge.runtime.inference.batching import batches_by_length

LENGTHS = [300, 1, 256, 2, 256, 600, 3]


def test_batches_of_similar_length() -> None:
    assert batches_by_length(LENGTHS, 3) == [[1, 3, 6], [2, 4, 0], [5]]
    assert batches_by_length(LENGTHS, 3, longest_first=True) == [[5, 0, 2], [4, 6, 3], [1]]
    assert batches_by_length(LENGTHS) == [[1, 3, 6, 2, 4, 0, 5]]


@pytest.mark.parametrize("longest_first", [False, True])
def test_a_batch_stays_below_the_limit_of_tokens(longest_first: bool) -> None:
    batches = batches_by_length(LENGTHS, max_tokens=512, longest_first=longest_first)
    expected = [[1, 3, 6], [2, 4], [0], [5]] if not longest_first else [[5], [0], [2, 4], [6, 3, 1]]
    assert batches == expected


def test_both_limits_hold() -> None:
    assert batches_by_length(LENGTHS, 2, max_tokens=512) == [[1, 3], [6, 2], [4], [0], [5]]


def test_no_rows_are_no_batches() -> None:
    assert batches_by_length([], 4, max_tokens=512) == []
