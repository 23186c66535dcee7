"""Lines of standard input, within limits of memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator


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
