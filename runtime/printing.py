"""Texts from files, models and services, made safe and short enough to print."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Text for a terminal: control characters but line ends and tabs as escapes."""
    return "".join(
        char
        if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs")
        else ascii(char)[1:-1]
        for char in text
    )


def printable_line(text: object) -> str:
    """Text in one line: every character that is not printable becomes a space."""
    return "".join(char if char.isprintable() else " " for char in str(text))


def without_controls(text: str) -> str:
    """Text without the control characters that could change a terminal's state."""
    return "".join(c for c in text if c in "\n\t" or (ord(c) >= 32 and not 127 <= ord(c) < 160))


def shorten(text: str, limit: int = 80) -> str:
    """The text, or its first characters and an ellipsis: at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
