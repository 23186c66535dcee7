"""The program: one engine, asked by lines of JSON; see the package's own words."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from .spec import Baseline, Generate, Spec
from .table import engine_of

Answer = Callable[..., None]


def main(argument: str) -> None:
    values = json.loads(argument)
    spec = Spec(
        values["engine"],
        Path(values["model"]),
        Path(values["cache"]),
        Path(values["base"]),
        values["threads"],
        values["target"],
    )
    answers = answers_apart()

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    baseline = engine_of(spec.engine, spec.target)
    try:
        if values["prepare"]:
            _prepare(baseline, spec)
            answer(ready=True)
        else:
            _serve(baseline, spec, answer)
    except Exception as error:
        # Our own error for a library that is missing keeps Python's as its cause.
        chain = (error, error.__cause__)
        missing = next((e.name for e in chain if isinstance(e, ModuleNotFoundError)), None)
        answer(missing=missing) if missing else answer(error=reason(error))


def answers_apart() -> TextIO:
    """Where the answers go; what libraries print, which must not come between, goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    return answers


def _prepare(baseline: Baseline, spec: Spec) -> None:
    """Convert into `spec.cache`, which appears whole or not at all."""
    _import(baseline)
    if baseline.prepare is None or spec.cache.exists():
        return
    unfinished = spec.cache.with_name(f".{spec.cache.name}.{os.getpid()}")
    try:
        baseline.prepare(
            Spec(spec.engine, spec.model, unfinished, spec.base, spec.threads, spec.target)
        )
        unfinished.rename(spec.cache)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _serve(baseline: Baseline, spec: Spec, answer: Answer) -> None:
    started = time.perf_counter()
    _import(baseline)
    imported = time.perf_counter()
    engine = baseline.load(spec)
    loaded = time.perf_counter()
    answer(
        ready=True,
        import_ms=(imported - started) * 1000,
        load_ms=(loaded - imported) * 1000,
        versions={name: v for name in baseline.libraries if (v := _version(name))},
    )
    for line in sys.stdin:
        asked = json.loads(line)
        if baseline.respond is not None:
            found = baseline.respond(engine, asked)
        else:
            found = {"ms": _time(engine, asked["input_ids"], asked["new_tokens"], asked["runs"])}
        answer(**found, rss=rss(), peak_rss=peak_rss())


def _import(baseline: Baseline) -> None:
    for library in baseline.libraries:
        importlib.import_module(library)


def _time(generate: Generate, input_ids: list[int], new_tokens: int, runs: int) -> list[float]:
    """Milliseconds of each run, after one that is not counted: others had the caches before.

    Raises:
        ValueError: the answer has another length than was asked for.
    """
    times = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(runs + 1):
            started = time.perf_counter()
            found = generate(input_ids, new_tokens)
            times.append((time.perf_counter() - started) * 1000)
            if len(found) != new_tokens:
                raise ValueError(f"{len(found)} new tokens where {new_tokens} were asked for")
    finally:
        gc.enable()
    return times[1:]


def rss() -> int:
    """The memory that this process has resident, in bytes; where that is not told, the most."""
    return _status("VmRSS") or peak_rss()


def peak_rss() -> int:
    """The most memory that this process had resident, in bytes."""
    # getrusage would count what the parent had before this program started.
    if found := _status("VmHWM"):
        return found
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status(field: str) -> int | None:
    """A size in Linux' /proc/self/status, in bytes."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = status.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


# Modules whose package has another name.
_PACKAGES = {"llama_cpp": "llama-cpp-python", "optimum": "optimum-onnx"}


def _version(library: str) -> str | None:
    try:
        return metadata.version(_PACKAGES.get(library, library))
    except metadata.PackageNotFoundError:
        return None


def die_with_parent() -> None:
    """A process that waits stopped could not see that its parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    die_with_parent()
    main(sys.argv[1])
