"""The folder of a run that is going on: `OUTPUT.run`, with its log, checkpoints and snapshots.

When the model folder is complete the log moves into it and the run's folder goes, but for the
snapshots. A run that fails before its first checkpoint leaves nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from edge.runtime.errors import OutputExistsError
from edge.runtime.platform.atomic import readable_os_errors
from edge.runtime.platform.lock import is_locked, lock_file
from edge.train.checkpoint.store import prune, steps_in
from edge.train.events import Event

LOG = "training_log.jsonl"
_SUFFIX = ".run"
_LOCK = "lock"
_CHECKPOINTS = "checkpoints"
_LOGGED = ("start", "progress", "eval", "checkpoint", "warning", "resumed", "end")
_MEASURED = (
    *("loss", "learning_rate", "rows_per_second", "tokens_per_second"),
    *("padding_waste", "seconds_left"),
)


def run_folder(output: Path) -> Path:
    """Where a run that will write `output` keeps its state."""
    return output.with_name(output.name + _SUFFIX)


@dataclass(frozen=True)
class RunFolder:
    """An opened one, locked against a second process."""

    path: Path
    log: RunLog

    @property
    def checkpoints(self) -> Path:
        return self.path / _CHECKPOINTS

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"


class RunLog:
    """Events as JSON lines. A log that can't be written never stops a training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def open(self, *, anew: bool) -> None:
        self._file = self.path.open("w" if anew else "a", encoding="utf-8")
        if self._file.tell():
            self._file.write("\n")  # after a line that a killed process left unfinished

    def on_event(self, event: Event) -> None:
        if self._file is None or event.kind not in _LOGGED or event.message == "evaluating":
            return
        filled = {
            name: value
            for name, value in asdict(event).items()
            if value is not None and value not in ("", {}) and name != "reasons"
        }
        with contextlib.suppress(OSError, ValueError):
            line = json.dumps({"time": round(time.time(), 3), **filled}, allow_nan=False)
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def refuse_unfinished(output: Path) -> None:
    """Refuse to train to `output` where an unfinished run would be lost.

    Raises:
        OutputExistsError: its run folder holds a checkpoint.
    """
    path = run_folder(output)
    steps = steps_in(path / _CHECKPOINTS)
    if steps:
        raise OutputExistsError(
            f"{path} holds a checkpoint of an unfinished run (step {steps[-1]}): give --resume"
            " to go on from it, or --force to start anew"
        )


@contextlib.contextmanager
def opened_run(output: Path, *, resume: bool, force: bool) -> Iterator[RunFolder]:
    """Make or reopen the run folder of `output`.

    Raises:
        OutputExistsError: a checkpoint of an earlier run is there and neither `resume` nor `force`
            is on; the folder is not a run's.
        UsageError: another process is training to the same output.
        EdgeError: the place can't be written.
    """
    path = run_folder(output)
    with readable_os_errors(path):
        if path.exists() and not (path / _LOCK).is_file():
            raise OutputExistsError(
                f"{path} is no folder of a training run; move it away, or choose another --output"
            )
        path.mkdir(parents=True, exist_ok=True)
    with lock_file(path / _LOCK, output):
        run = RunFolder(path, RunLog(path / LOG))
        if not resume and not force:
            refuse_unfinished(output)
        with readable_os_errors(path):
            if not resume:
                shutil.rmtree(run.checkpoints, ignore_errors=True)
                shutil.rmtree(run.snapshots, ignore_errors=True)
            run.checkpoints.mkdir(exist_ok=True)
            prune(run.checkpoints, keep=steps_in(run.checkpoints))  # what was half written
            run.log.open(anew=not resume)
        finished = False
        try:
            yield run
            finished = True
        finally:
            run.log.close()
            _clear(run, finished)


def _clear(run: RunFolder, finished: bool) -> None:
    if not finished and steps_in(run.checkpoints):
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
    """What a log tells. `progress` and `evals` are entries by ascending step."""

    folder: Path
    status: str
    details: dict[str, Any]
    progress: list[dict[str, Any]]
    evals: list[dict[str, Any]]

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a figure of the progress entries or of the evaluations."""
        points = [(e["step"], e[name]) for e in self.progress if name in e]
        points += [(e["step"], e["details"][name]) for e in self.evals if name in e["details"]]
        return [step for step, _ in points], [float(value) for _, value in points]


def find_log(place: Path) -> Path | None:
    """The log of an output, finished or not, or of a run folder."""
    for candidate in (run_folder(place) / LOG, place / LOG):
        if candidate.is_file():
            return candidate
    return None


def find_runs(root: Path) -> list[Path]:
    """The folders below `root`, at most three levels deep, that hold a run's log."""
    found = []
    for folder, names, files in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        names[:] = sorted(n for n in names if not n.startswith(".")) if depth < 3 else []
        if LOG in files:
            found.append(Path(folder))
    return found


def read_run(log: Path) -> RunView:
    """The run that a log tells of, also while it is written.

    What was done after a checkpoint and lost with a crash is left out.
    """
    view = RunView(log.parent, "", {}, [], [])
    ended = ""
    with log.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
                kind, step = entry["kind"], entry.get("step", 0)
            except (ValueError, KeyError, TypeError):
                continue  # empty, or cut off by a crash
            if kind == "start":
                view.details, ended = entry.get("details", {}), ""
            elif kind == "resumed":
                view.progress = [e for e in view.progress if e["step"] <= step]
                view.evals = [e for e in view.evals if e["step"] <= step]
            elif kind == "progress" and "step" in entry:
                view.progress.append(entry)
            elif kind == "eval":
                view.evals.append(entry)
            elif kind == "end":
                ended = entry.get("message", "")
    view.status = ended or ("running" if is_running(log.parent) else "stopped")
    return view
