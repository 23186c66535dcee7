"""Runs each part of the GPU suite in a process of its own, with a time limit; keeps the results.

A part that fails, crashes or hangs loses nothing but itself: the JSON file is replaced after each.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Result = dict[str, Any]
_SECONDS_TO_END = 10  # of a process whose result has arrived


class SkippedError(Exception):
    """A part can't run on this machine; the message says why."""


class FailedError(Exception):
    """A part ran and its result is wrong; the message says what, `result` has the figures."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True)
class Outcome:
    """status: ok, failed, skipped, "timed out" or "not run"; seconds of wall time."""

    status: str
    seconds: float
    result: Result
    reason: str = ""


def call_in_process(
    function: Callable[..., Result],
    *arguments: Any,
    limit: float,
    method: str = "fork",
    new_group: bool = True,
) -> Outcome:
    """Call `function` in a new process, and kill it after `limit` seconds.

    By "fork" it needs no imports again; this process must not have used the GPU. With `new_group`,
    the processes that it starts are killed with it, unless they are in groups of their own.
    """
    context: Any = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments, new_group))
    start = time.monotonic()
    process.start()
    sender.close()
    status, result, reason = "timed out", {}, f"killed after its limit of {limit:.0f} s"
    try:
        if receiver.poll(max(0.0, limit)):
            status, result, reason = receiver.recv()
            process.join(_SECONDS_TO_END)
    except EOFError:
        process.join(_SECONDS_TO_END)
        status, reason = "failed", f"ended with exit code {process.exitcode} and without a result"
    finally:
        if process.is_alive():
            _kill(process.pid)
        process.join()
        receiver.close()
    return Outcome(status, round(time.monotonic() - start, 2), result, reason)


def _call(
    sender: Connection, function: Callable[..., Result], arguments: tuple[Any, ...], new_group: bool
) -> None:
    if new_group:
        os.setpgrp()
    try:
        sender.send(("ok", function(*arguments), ""))
    except SkippedError as error:
        sender.send(("skipped", {}, str(error)))
    except FailedError as error:
        sender.send(("failed", error.result, str(error)))
    except BaseException as error:
        traceback.print_exc()
        sender.send(("failed", {}, f"{type(error).__name__}: {error}"[:2000]))
    sys.stdout.flush()
    sys.stderr.flush()


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
            return
        except ProcessLookupError:
            continue


@dataclass(frozen=True)
class Part:
    """A part: `run(context, results of the parts before)`, and its time limit in seconds.

    `method` is how its process is started, if not as the others.
    """

    name: str
    run: Callable[..., Result]
    limit: float
    method: str | None = None


class Report:
    """The results so far, in a JSON file that is always complete."""

    def __init__(self, path: Path, details: Mapping[str, Any]) -> None:
        self._path = path
        self._content: dict[str, Any] = {"kind": "gpu-suite", "schema": 1, **details, "parts": {}}
        self._write()

    @property
    def results(self) -> dict[str, Result]:
        """The results of the parts that succeeded."""
        parts = self._content["parts"].items()
        return {name: part["result"] for name, part in parts if part["status"] == "ok"}

    @property
    def failures(self) -> list[str]:
        """The parts that failed or timed out."""
        parts = self._content["parts"].items()
        return [name for name, part in parts if part["status"] in ("failed", "timed out")]

    def add(self, name: str, outcome: Outcome) -> None:
        """Add the outcome of a part and write the file."""
        self._content["parts"][name] = asdict(outcome)
        self._write()

    def finish(self, seconds: float) -> None:
        """Add the time of the whole suite and write the file."""
        self._content["seconds"] = round(seconds, 1)
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name(f"{self._path.name}.new")
        new.write_text(json.dumps(self._content, indent=2) + "\n", encoding="utf-8")
        new.replace(self._path)


def run_parts(
    parts: list[Part], context: object, report: Report, *, budget: float, method: str
) -> None:
    """Run the parts in turn; those that no time is left for are "not run".

    Args:
        parts: The parts.
        context: The first argument of each.
        report: Gets the outcomes.
        budget: Seconds for all parts.
        method: How processes are started, "fork" or "spawn".
    """
    start = time.monotonic()
    for part in parts:
        left = budget - (time.monotonic() - start)
        if left < 1:
            outcome = Outcome("not run", 0.0, {}, f"the budget of {budget:.0f} s is used up")
        else:
            limit = min(part.limit, left)
            outcome = call_in_process(
                part.run, context, report.results, limit=limit, method=part.method or method
            )
        report.add(part.name, outcome)
        print(f"{part.name}: {outcome.status} ({outcome.seconds} s) {outcome.reason}", flush=True)
        if outcome.result:
            print(f"  {json.dumps(outcome.result)}", flush=True)
    report.finish(time.monotonic() - start)
