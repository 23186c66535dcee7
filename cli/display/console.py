"""Consoles and progress displays: progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


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


class PhaseBars:
    """A bar on stderr for each phase of a measurement. Nothing is printed before the first."""

    def __init__(self) -> None:
        self._progress = progress_bar()
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tasks:
            with contextlib.suppress(OSError):  # the terminal is gone
                self._progress.stop()

    def show(self, phase: str, done: int, of: int, label: str | None = None) -> None:
        """Set the bar of `phase` to `done` of `of`.

        Args:
            phase: What has one bar.
            done: Steps done.
            of: All steps.
            label: Text beside the bar, by default the phase.
        """
        if phase not in self._tasks:
            self._progress.start()
            self._tasks[phase] = self._progress.add_task(label or phase, total=of)
        self._progress.update(
            self._tasks[phase], completed=done, total=of, description=label or phase
        )


def quiet_libraries() -> None:
    """Silence the notices and progress bars of torch, transformers and huggingface_hub."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|transformers)\b")
