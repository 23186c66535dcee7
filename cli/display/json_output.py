"""JSON output of the commands: a file, or standard output for `-`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

STDOUT = Path("-")


def write_json(values: Mapping[str, Any], file: Path) -> None:
    """Write `values` as JSON to `file` atomically, or to standard output for `-`.

    Raises:
        EdgeError: The file can't be written.
    """
    write_text(json.dumps(values, indent=2) + "\n", file)


def write_text(text: str, file: Path) -> None:
    """Write `text` to `file` atomically, or to standard output for `-`.

    Raises:
        EdgeError: The file can't be written.
    """
    from edge.runtime.platform.atomic import new_file

    if file == STDOUT:
        click.echo(text, nl=False)
        return
    with new_file(file) as staging:
        staging.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def tables_beside(file: Path | None) -> Iterator[None]:
    """Print to stderr inside the block if `file` is standard output, so that it holds JSON only."""
    with contextlib.ExitStack() as stack:
        if file == STDOUT:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield
