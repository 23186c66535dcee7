"""Consoles and progress displays: progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def stderr_console() -> Console:
    """A console on stderr."""
    from rich.console import Console

    return Console(stderr=True)


def stdout_console() -> Console:
    """A console on stdout, as wide as COLUMNS says, the terminal, or 160 columns."""
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            # rich would exit with 1; `edge.cli.main` ends quietly.
            raise BrokenPipeError

    from_environment = os.environ.get("COLUMNS", "").isdigit()
    return PipeConsole(width=None if from_environment or sys.stdout.isatty() else 160)


@contextlib.contextmanager
def status(message: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr if that is a terminal; yields a function that changes its text."""
    with stderr_console().status(message) as spinner:
        yield spinner.update


def progress_bar() -> Progress:
    """A progress bar on stderr with the count, the elapsed and the remaining time."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr_console(),
    )


def quiet_libraries() -> None:
    """Silence the notices and progress bars of torch, transformers and huggingface_hub."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|transformers)\b")
