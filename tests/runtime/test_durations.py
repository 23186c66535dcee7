"""Durations as people write them."""

from __future__ import annotations

import pytest

from edge.runtime.durations import format_duration, parse_duration
from edge.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5m", 90),
        ("2h", 7200),
        ("250ms", 0.25),
        (30, 30),
        (" 5 m ", 300),
    ],
)
def test_units(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "soon", "1d", "nan", "inf", True, "1" * 5000, 0.0, 10**400, 10**5000],
    ids=lambda value: "huge" if isinstance(value, int) else None,
)
def test_what_is_no_duration_is_refused_by_name(text: str | float) -> None:
    with pytest.raises(UsageError, match="--time-limit"):
        parse_duration(text, "--time-limit")


@pytest.mark.parametrize("text", ["90s", "5m", "2h", "1.5s"])
def test_round_trip(text: str) -> None:
    assert format_duration(parse_duration(text)) == text
