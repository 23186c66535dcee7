"""Standard input, line by line or as a file, within limits of memory and disk."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

_MAX_BYTES = 4 << 30  # of the temporary file
_SUFFIXES = {b"{": ".jsonl", b"[": ".json"}


def input_lines() -> Iterator[tuple[int, bytes]]:
    """Line number, from 1, and bytes of each line, blank ones too.

    Raises:
        UsageError: Standard input is closed.
        DataError: A line is too long, or can't be read.
    """
    from edge.runtime.errors import UsageError
    from edge.runtime.rows.lines import raw_lines

    if sys.stdin is None:  # closed by the caller, as `<&-` and some schedulers do
        raise UsageError("standard input is closed. Give the text as an argument, or open it")
    yield from raw_lines(sys.stdin.buffer, "standard input", blank=True)


@contextlib.contextmanager
def saved_input() -> Iterator[Path]:
    """Standard input as a temporary file: .jsonl or .json by its first character, else .txt.

    Raises:
        UsageError: Standard input is closed, or larger than 4 GiB.
        DataError: A line is too long, or can't be read.
    """
    from edge.runtime.errors import UsageError

    announce("to its end")
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        path = Path(folder, "standard-input")
        first, size = b"", 0
        with path.open("wb") as file:
            for _, line in input_lines():
                first = first or line.lstrip()[:1]
                size += file.write(line)
                if size > _MAX_BYTES:
                    raise UsageError("standard input is larger than 4 GiB; give a file")
        yield path.rename(path.with_suffix(_SUFFIXES.get(first, ".txt")))


def announce(how: str) -> None:
    """On a terminal, say that the command waits for input."""
    if sys.stdin is not None and sys.stdin.isatty():
        click.echo(f"reading standard input {how}; end it with Ctrl-D", err=True)
