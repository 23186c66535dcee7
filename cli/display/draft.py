"""Progress and result of a draft head's fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.display.console import progress_bar

if TYPE_CHECKING:
    from rich.progress import TaskID

    from edge.export.draft.fit import DraftInputs


def fit_draft(model: Path, data: Path | DraftInputs, **options: Any) -> None:
    """Fit a draft head, with a progress bar; print what it drafts, and the next step.

    Args:
        model: The model folder.
        data: Rows, or texts.
        options: Further arguments of `edge.export.draft.fit.fit_draft_head`.

    Raises:
        EdgeError: As `fit_draft_head`.
    """
    from edge.export.draft.fit import fit_draft_head
    from edge.export.draft_head import draft_head_line

    bar = _Bar()
    try:
        fitted = fit_draft_head(model, data, on_progress=bar.show, **options)
    finally:
        bar.stop()
    click.echo(f"draft head: {fitted.path} ({draft_head_line(fitted.head.record)})")
    artifact = model.with_name(model.name + "-artifact")
    click.echo(
        f"next:  edge export {model} --format onnx --prompt-lookup-num-tokens 8 --output {artifact}"
    )


class _Bar:
    """A progress bar that appears with the first progress: a refusal stays one line."""

    def __init__(self) -> None:
        self._progress = progress_bar()
        self._task: TaskID | None = None

    def show(self, phase: str, done: int, of: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task(phase)
            self._progress.start()
        self._progress.update(self._task, description=phase, completed=done, total=of)

    def stop(self) -> None:
        if self._task is not None:
            self._progress.stop()
