"""Texts made safe and short enough to print."""

from __future__ import annotations

from edge.runtime.printing import printable, printable_line, shorten, without_controls

FORGED = "a\x1b[31mb\nc\td\x9b\u202e\ue000ü"


def test_escapes_show_what_a_terminal_would_obey() -> None:
    assert printable(FORGED) == "a\\x1b[31mb\nc\td\\x9b\\u202e\ue000ü"


def test_a_line_has_printable_characters_only() -> None:
    line = printable_line(FORGED)
    assert line == "a [31mb c d   ü"
    assert line.isprintable()
    assert printable_line(None) == "None"


def test_a_stream_keeps_its_lines_but_no_controls() -> None:
    assert without_controls("a\x1b[31mb\nc\td\x7f\x9bü") == "a[31mb\nc\tdü"


def test_longer_texts_end_with_an_ellipsis() -> None:
    assert shorten("abcd", 4) == "abcd"
    assert shorten("abcde", 4) == "abc…"
    assert len(shorten("x" * 500)) == 80
