"""The program that runs one engine; the package's docstring describes its requests and answers."""

from __future__ import annotations

import gc
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from .bulk_answers import answer_texts
from .child import describe_error, die_with_parent, peak_rss, redirect_stdout, rss
from .spec import Baseline, Generate, Spec
from .table import engine_of

Answer = Callable[..., None]
# Modules whose package has another name.
_PACKAGES = {"llama_cpp": "llama-cpp-python", "optimum": "optimum-onnx"}


def main(argument: str) -> None:
    """Prepare or run the engine that `argument` (JSON) describes."""
    values = json.loads(argument)
    spec = Spec(
        values["engine"],
        Path(values["model"]),
        Path(values["cache"]),
        Path(values["base"]),
        values["threads"],
        values["target"],
        values["trust_code"],
    )
    answers = redirect_stdout()

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
        # MissingExtraError has Python's error as its cause.
        chain = (error, error.__cause__)
        missing = next((e.name for e in chain if isinstance(e, ModuleNotFoundError)), None)
        answer(missing=missing) if missing else answer(error=describe_error(error))


def _prepare(baseline: Baseline, spec: Spec) -> None:
    """Convert into `spec.cache`, which appears only when it is complete."""
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
        request = json.loads(line)
        default = answer_texts if "texts" in request else _time
        respond = default if baseline.respond is None else baseline.respond
        answer(**respond(engine, request), rss=rss(), peak_rss=peak_rss())


def _import(baseline: Baseline) -> None:
    for library in baseline.libraries:
        importlib.import_module(library)


def _time(generate: Generate, request: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of each run, after untimed ones. A run answers all rows.

    Raises:
        ValueError: an answer is missing or has another length than requested.
    """
    rows, new_tokens = request["rows"], request["new_tokens"]
    times = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(request["warmup"] + request["runs"]):
            started = time.perf_counter()
            answers = generate(rows, new_tokens)
            times.append((time.perf_counter() - started) * 1000)
            if len(answers) != len(rows):
                raise ValueError(f"{len(answers)} answers instead of {len(rows)}")
            for tokens in answers:
                if len(tokens) != new_tokens:
                    raise ValueError(f"{len(tokens)} new tokens instead of {new_tokens}")
    finally:
        gc.enable()
    return {"ms": times[request["warmup"] :]}


def _version(library: str) -> str | None:
    try:
        return metadata.version(_PACKAGES.get(library, library))
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    die_with_parent()
    main(sys.argv[1])
