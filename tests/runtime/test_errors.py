"""Errors in one line."""

from __future__ import annotations

from edge.runtime.errors import first_line, one_line


def test_the_first_line_of_a_message() -> None:
    assert first_line(ValueError("\n what is wrong.\nand where")) == "what is wrong"
    assert first_line(ValueError("")) == "ValueError"
    assert first_line("x" * 500, max_chars=10) == "x" * 10


def test_a_message_on_one_line() -> None:
    assert one_line(ValueError("a\n\n  b\tc ")) == "a b c"
