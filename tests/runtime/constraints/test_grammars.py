"""Grammars as text, before llguidance reads them."""

from __future__ import annotations

import time

import pytest

from edge.runtime.constraints.grammars import lark_grammar
from edge.runtime.errors import UsageError


@pytest.mark.parametrize(
    "line", ["A" * 200_000, " " * 200_000, "A" + "b" * 200_000, "A\n" * 100_000]
)
def test_a_line_without_a_colon_takes_linear_time(line: str) -> None:
    started = time.perf_counter()
    assert lark_grammar(line).endswith(line)
    assert time.perf_counter() - started < 5


def test_terminals_are_found_with_priorities_and_spaces() -> None:
    doubled = [f"  A{n}.{n} : A{n - 1} A{n - 1}" for n in range(1, 20)]
    grammar = "\n".join(["start: A19", "A0: /x/", *doubled])
    with pytest.raises(UsageError, match="terminal A12 consists of over 5,000"):
        lark_grammar(grammar)
