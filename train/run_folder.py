"""The folder of a run in progress, `OUTPUT.run`: its log, checkpoints and snapshots.

When the model folder is complete, the log is copied into it and the run folder is deleted, except
for snapshots. A run that fails before its first checkpoint leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from edge.runtime.errors import OutputExistsError
from edge.runtime.platform.destination import check_destination
from edge.runtime.platform.json_file import dump_json, parse_json
from edge.runtime.platform.lock import is_locked, lock_file
from edge.runtime.platform.os_errors import readable_os_errors
from edge.train.checkpoint.store import prune, steps_in
from edge.train.config import TrainConfig
from edge.train.events import Event

LOG = "training_log.jsonl"
_SUFFIX = ".run"
_LOCK = "lock"
_CHECKPOINTS = "checkpoints"
_LOGGED = ("start", "progress", "eval", "checkpoint", "warning", "resumed", "end")


def run_folder(output: Path) -> Path:
    """The run folder of a run that writes `output`."""
    return output.with_name(output.name + _SUFFIX)


@dataclass(frozen=True)
class RunFolder:
    """An open run folder."""

    path: Path
    log: RunLog

    @classmethod
    def of(cls, output: Path) -> RunFolder:
        """The run folder of `output`, without opening it."""
        path = run_folder(output)
        return cls(path, RunLog(path / LOG))

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / _CHECKPOINTS

    @property
    def snapshots(self) -> Path:
        """The folder of the models that are kept every few epochs."""
        return self.path / "snapshots"


class RunLog:
    """Writes events as JSON lines. A failing log never stops the training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def open(self, *, append: bool) -> None:
        """Open the file, to continue it or to start over.

        Raises:
            OSError: It can't be written.
        """
        self._file = self.path.open("a" if append else "w", encoding="utf-8")
        if self._file.tell():
            self._file.write("\n")  # ends a line that a killed process left unfinished

    def on_event(self, event: Event) -> None:
        """Append the event, with the time in seconds since the epoch."""
        if self._file is None or event.kind not in _LOGGED or event.message == "evaluating":
            return
        fields = {
            name: value
            for name, value in asdict(event).items()
            if value is not None and value not in ("", {}) and name != "reasons"
        }
        with contextlib.suppress(OSError, ValueError):
            self._file.write(dump_json({"time": round(time.time(), 3), **fields}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def check_output(config: TrainConfig) -> None:
    """Check before the work that the model may be written, and replaces nothing that is read.

    Raises:
        OutputExistsError: See `check_destination`.
        EdgeError: It can't be written.
    """
    read = (config.data, config.model, config.tokenizer)
    inputs = [path for path in read if path is not None]
    check_destination(config.output, force=config.force, inputs=inputs)


def refuse_unfinished(output: Path) -> None:
    """Check that no unfinished run to `output` would be lost.

    Raises:
        OutputExistsError: Its run folder holds a checkpoint.
    """
    path = run_folder(output)
    steps = steps_in(path / _CHECKPOINTS)
    if steps:
        raise OutputExistsError(
            f"{path} holds a checkpoint of an unfinished run (step {steps[-1]}); use --resume to"
            " continue it, or --force to start over"
        )


@contextlib.contextmanager
def open_run_folder(output: Path, *, resume: bool, force: bool) -> Iterator[RunFolder]:
    """Create or reopen the run folder of `output`, locked against other processes.

    Raises:
        OutputExistsError: It holds a checkpoint and neither `resume` nor `force` is on; another
            process trains to the same output; or the folder is not a run folder.
        EdgeError: The folder can't be written.
    """
    run = RunFolder.of(output)
    with readable_os_errors(run.path):
        if run.path.exists() and not (run.path / _LOCK).is_file():
            raise OutputExistsError(
                f"{run.path} is not the folder of a training run; move it away, or choose another"
                " --output"
            )
        run.path.mkdir(parents=True, exist_ok=True)
    with lock_file(run.path / _LOCK, output):
        if not resume and not force:
            refuse_unfinished(output)
        with readable_os_errors(run.path):
            if not resume:
                shutil.rmtree(run.checkpoints, ignore_errors=True)
                shutil.rmtree(run.snapshots, ignore_errors=True)
            run.checkpoints.mkdir(exist_ok=True)
            prune(run.checkpoints, keep=steps_in(run.checkpoints))  # unfinished ones
            run.log.open(append=resume)
        is_finished = False
        try:
            yield run
            is_finished = True
        finally:
            run.log.close()
            _clean_up(run, is_finished)


def _clean_up(run: RunFolder, is_finished: bool) -> None:
    if not is_finished and steps_in(run.checkpoints):
        return
    if run.snapshots.is_dir() and any(run.snapshots.iterdir()):
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        return
    shutil.rmtree(run.path, ignore_errors=True)


def is_running(path: Path) -> bool:
    """Whether a process holds the lock of the run folder `path`."""
    return is_locked(path / _LOCK)


@dataclass
class RunView:
    """The content of a run's log.

    Attributes:
        folder: Where the log is.
        status: "running", "stopped", or the message of the last event, such as "finished".
        details: Those of the "start" event.
        progress: The "progress" events by ascending step.
        evals: The "eval" events by ascending step.
    """

    folder: Path
    status: str
    details: dict[str, Any]
    progress: list[dict[str, Any]]
    evals: list[dict[str, Any]]

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and finite values of a quantity of the progress events or the evaluations."""
        points = [(e["step"], e[name]) for e in self.progress if name in e]
        points += [(e["step"], e["details"][name]) for e in self.evals if name in e["details"]]
        points = [(step, float(value)) for step, value in points if math.isfinite(value)]
        return [step for step, _ in points], [value for _, value in points]


def find_log(path: Path) -> Path | None:
    """The log of the output `path`, finished or not, or of the run folder `path`."""
    for candidate in (run_folder(path) / LOG, path / LOG):
        if candidate.is_file():
            return candidate
    return None


def find_runs(root: Path) -> list[Path]:
    """The folders with a run's log, at most three levels below `root`."""
    found = []
    for folder, names, files in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        names[:] = sorted(n for n in names if not n.startswith(".")) if depth < 3 else []
        if LOG in files:
            found.append(Path(folder))
    return found


def read_run(log: Path) -> RunView:
    """Read a log, also while it is written.

    Steps that were lost in a crash and done again after resuming appear once.
    """
    view = RunView(log.parent, "", {}, [], [])
    end_message = ""
    with log.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = parse_json(line)
                kind, step = entry["kind"], entry.get("step", 0)
            except (ValueError, KeyError, TypeError):
                continue  # empty, or cut off by a crash
            if kind == "start":
                view.details, end_message = entry.get("details", {}), ""
            elif kind == "resumed":
                view.progress = [e for e in view.progress if e["step"] <= step]
                view.evals = [e for e in view.evals if e["step"] <= step]
            elif kind == "progress" and "step" in entry:
                view.progress.append(_with_nan(entry))
            elif kind == "eval":
                view.evals.append({**entry, "details": _with_nan(entry.get("details", {}))})
            elif kind == "end":
                end_message = entry.get("message", "")
    view.status = end_message or ("running" if is_running(log.parent) else "stopped")
    return view


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    """The log writes numbers that are not finite as null."""
    return {name: math.nan if value is None else value for name, value in values.items()}
