"""One engine's process, from the parent's side: started, asked, stopped while others run."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edge.bench.engines.baselines.spec import Spec
from edge.bench.engines.baselines.table import engine_of

# Seconds that an engine may take before it counts as hung.
_LONGEST_ANSWER = 600
_LONGEST_PREPARATION = 3600
_PROGRAM = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1));"
    "runpy.run_module('baselines', None, '__main__')"
)
# Threads are set for each engine, never inherited.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class EngineMissingError(Exception):
    """An engine whose libraries are not installed; the text names what is missing."""


class EngineFailedError(Exception):
    """An engine that reported an error, crashed or hung; the text says which."""


class FailureIsolated(abc.ABC):
    """An engine through a run: its first failure ends its part, is kept, and the others go on."""

    failure = ""

    def guard(self, action: Callable[..., object], *arguments: Any) -> None:
        """Call `action` unless the engine failed before."""
        if self.failure:
            return
        try:
            action(*arguments)
        except EngineMissingError as error:
            self.fail(f"not installed: {error}")
        except EngineFailedError as error:
            self.fail(str(error))

    def fail(self, reason: str) -> None:
        self.failure = reason
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """End the engine's process, if it has one."""


@dataclasses.dataclass(frozen=True)
class Timed:
    """Milliseconds of each run, the bytes that the process has resident, and the most so far."""

    ms: list[float]
    rss: int
    peak_rss: int


def baselines_python() -> Path | None:
    """The interpreter of the baselines' own environment (`make baselines`), where there is one."""
    given = os.environ.get("EDGE_BASELINES_PYTHON")
    if given:
        return Path(given) if Path(given).is_file() else None
    root = Path(__file__).resolve().parents[2]
    places = [folder / ".venv-baselines" / "bin" / "python" for folder in (Path.cwd(), root)]
    return next((place for place in places if place.is_file()), None)


def prepare(spec: Spec) -> None:
    """Convert the model for an engine, in a process of its own: its memory goes with it.

    Raises:
        EngineMissingError, EngineFailedError: see there.
    """
    with _started(spec, prepare=True) as process:
        process.answer(_LONGEST_PREPARATION)


class LineProcess:
    """A process that answers a line of JSON with a line of JSON, and sleeps in between."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the process; `answer` tells how that went."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        self.ready: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, asked: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Wake the process and return its answer to one line; the caller lets it sleep again.

        Raises:
            EngineMissingError, EngineFailedError: the engine can't, or is gone.
        """
        assert self._process.stdin
        self._signal("SIGCONT")
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise EngineFailedError(self._ending()) from None
        return self.answer(seconds)

    def sleep(self) -> None:
        """Stop the process where the system can: threads that spin would take a core."""
        self._signal("SIGSTOP")
        if hasattr(os, "waitid") and self._process.poll() is None:
            # The signal takes a moment: nothing else is measured before it stands still (or ended).
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next line of the process.

        Raises:
            EngineMissingError, EngineFailedError: see there.
        """
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        try:
            # In here: Ctrl-C while it starts would leave it running, and our end waiting for it.
            timer.start()
            assert self._process.stdout
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if late.is_set():
            raise EngineFailedError(f"no answer within {seconds:g} s")
        if not line.endswith("\n"):
            raise EngineFailedError(self._ending())
        found: dict[str, Any] = json.loads(line)
        if "missing" in found:
            raise EngineMissingError(found["missing"])
        if "error" in found:
            raise EngineFailedError(found["error"])
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream
            with contextlib.suppress(OSError):
                stream.close()

    def _signal(self, name: str) -> None:
        number = getattr(signal, name, None)
        if number is not None:
            self._process.send_signal(number)

    def _ending(self) -> str:
        """How the process ended, with the last line that it wrote."""
        status = self._process.wait()
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = f"crashed ({signal.Signals(-status).name})" if status < 0 else f"ended ({status})"
        return f"{how}: {said[:200]}" if said else how


P = TypeVar("P", bound=LineProcess)


class EngineProcess(LineProcess):
    """An engine that is loaded and waits to be asked.

    `started` and `answered` are when it was started and last answered, of `time.perf_counter`.
    """

    def __init__(self, spec: Spec, *, preparing: bool = False) -> None:
        """Start the process; `answer` tells how that went."""
        interpreter: Path | None = Path(sys.executable)
        separate = engine_of(spec.engine, spec.target).separate
        if separate and (interpreter := baselines_python()) is None:
            raise EngineMissingError("the baselines' environment (make baselines)")
        fields = {**dataclasses.asdict(spec), "prepare": preparing}
        # -P: a folder called `train` or `export` where the command runs is not a library.
        command = [str(interpreter), "-P", "-c", _PROGRAM, str(Path(__file__).parent)]
        self.started = self.answered = time.perf_counter()
        super().__init__(
            [*command, json.dumps(fields, default=str)],
            environment(spec.threads, separate=separate),
        )

    def time(self, input_ids: Sequence[int], new_tokens: int, runs: int) -> Timed:
        """Time answers of exactly `new_tokens`, after one that is not counted.

        Raises:
            EngineFailedError: the engine can't, or is gone.
        """
        asked = {"input_ids": list(input_ids), "new_tokens": new_tokens, "runs": runs}
        found = self.request(asked)
        return Timed(found["ms"], found["rss"], found["peak_rss"])

    def request(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Wake the process for one request, see `edge.bench.engines.baselines`, and let it sleep again.

        Raises:
            EngineFailedError: the engine can't, or is gone.
        """
        found = self.ask(asked, _LONGEST_ANSWER)
        self.answered = time.perf_counter()
        self.sleep()
        return found


@contextlib.contextmanager
def _started(spec: Spec, *, prepare: bool) -> Iterator[EngineProcess]:
    process = EngineProcess(spec, preparing=prepare)
    try:
        yield process
    finally:
        process.close()


def start(spec: Spec) -> EngineProcess:
    """Load an engine.

    Raises:
        EngineMissingError, EngineFailedError: see there.
    """
    return when_ready(EngineProcess(spec), _LONGEST_ANSWER)


def when_ready(process: P, seconds: float) -> P:
    """The process, asleep after its first answer, which is kept in `ready`; ended if that fails.

    Raises:
        EngineMissingError, EngineFailedError: see there.
    """
    try:
        process.ready = process.answer(seconds)
    except BaseException:
        process.close()
        raise
    process.sleep()
    return process


def environment(threads: int, *, separate: bool = False) -> dict[str, str]:
    """The environment of a process that computes with so many threads."""
    values = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    values |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if separate:
        values.pop("PYTHONPATH", None)  # ours: libraries of another environment
    return values
