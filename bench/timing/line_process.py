"""A child process that answers each line of JSON with a line of JSON, and is paused in between."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from edge.runtime.rows import to_json

# Set for each process, never inherited.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class EngineProcessError(Exception):
    """Base of the errors that end one engine's part of a benchmark, but not the benchmark."""


class EngineMissingError(EngineProcessError):
    """A library of the engine is not installed; the message names it."""


class EngineFailedError(EngineProcessError):
    """The engine reported an error, crashed or timed out; the message says which."""


class LineProcess:
    """A child process that reads requests from stdin and writes its answers to stdout.

    Each request and each answer is a JSON object on one line. The first answer comes without a
    request, when the process is ready. An answer `{"missing": library}` or `{"error": reason}` is
    raised as an exception. Between requests the process is paused with SIGSTOP, where the system
    has it: threads that spin while they wait would slow down whatever is measured next.

    Attributes:
        ready: the first answer.
        started: when the process was started (`time.perf_counter`).
        answered: when it last answered.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the process. `wait_until_ready` reads its first answer."""
        self.ready: dict[str, Any] = {}
        self.started = self.answered = time.perf_counter()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=environment,
            start_new_session=True,  # the parent alone handles Ctrl-C
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is still running (or paused)."""
        return self._process.poll() is None

    def request(self, values: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Resume the process, return its answer to one request, and pause it again.

        Args:
            values: the request.
            timeout: in seconds; a process that takes longer is killed.

        Raises:
            EngineMissingError: a library is not installed.
            EngineFailedError: the process reported an error, ended or timed out.
        """
        assert self._process.stdin
        self._send_signal("SIGCONT")
        try:
            self._process.stdin.write(to_json(values, ensure_ascii=True) + "\n")
            self._process.stdin.flush()
            return self.read_answer(timeout)
        except OSError:
            raise EngineFailedError(self._exit_reason()) from None
        finally:
            if self.alive:
                self.pause()

    def read_answer(self, timeout: float) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            EngineMissingError: a library is not installed.
            EngineFailedError: the process reported an error, ended or timed out.
        """
        timed_out = threading.Event()

        def kill() -> None:
            timed_out.set()
            self._process.kill()

        timer = threading.Timer(timeout, kill)
        timer.daemon = True
        try:
            # Inside: after Ctrl-C here, a timer that runs on would delay the end of this process.
            timer.start()
            assert self._process.stdout
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        self.answered = time.perf_counter()
        if timed_out.is_set():
            raise EngineFailedError(f"no answer within {timeout:g} s")
        if not line.endswith("\n"):
            raise EngineFailedError(self._exit_reason())
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise EngineMissingError(answer["missing"])
        if "error" in answer:
            raise EngineFailedError(answer["error"])
        return answer

    def pause(self) -> None:
        """Stop the process until the next request, and wait until it has stopped."""
        self._send_signal("SIGSTOP")
        if hasattr(os, "waitid") and self._process.poll() is None:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def close(self) -> None:
        """Kill the process and close its streams."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            assert stream
            with contextlib.suppress(OSError):
                stream.close()

    def _send_signal(self, name: str) -> None:
        number = getattr(signal, name, None)
        if number is not None:
            self._process.send_signal(number)

    def _exit_reason(self) -> str:
        """How the process ended, with the last line that it wrote to stderr."""
        status = self._process.wait()
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 2000))
        lines = self._stderr.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = f"crashed ({signal.Signals(-status).name})" if status < 0 else f"exited ({status})"
        return f"{how}: {last[:200]}" if last else how


P = TypeVar("P", bound=LineProcess)


def wait_until_ready(process: P, timeout: float) -> P:
    """Read the process's first answer into `ready` and pause it; close it if that fails.

    Raises:
        EngineMissingError: a library is not installed.
        EngineFailedError: the process reported an error, ended or timed out.
    """
    try:
        process.ready = process.read_answer(timeout)
        process.pause()
    except BaseException:
        process.close()
        raise
    return process


def process_environment(threads: int, *, separate: bool = False) -> dict[str, str]:
    """The environment variables of a process that computes with `threads` threads.

    With `separate`, it runs in another Python environment: PYTHONPATH is left out.
    """
    values = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    values |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if separate:
        values.pop("PYTHONPATH", None)
    return values
