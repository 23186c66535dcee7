"""Rows of token ids cut to a limit."""

from __future__ import annotations

import pytest

from edge.runtime.text.tokenization import cut_ids


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [1]), (2, [5, 1]), (3, [5, 6, 1]), (4, [5, 6, 7, 1])]
)
def test_the_last_id_stays_the_end_token(limit: int, expected: list[int]) -> None:
    ids = [5, 6, 7, 1]
    assert cut_ids(ids, limit, eos=1) == expected
    assert ids == [5, 6, 7, 1]
