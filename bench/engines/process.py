"""Processes of the measured engines: where each runs, how it is started and what it is asked."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.bench.engines.baselines.spec import Spec
from edge.bench.engines.baselines.table import engine_of
from edge.bench.timing.line_process import (
    EngineMissingError,
    LineProcess,
    process_environment,
    wait_until_ready,
)

_ANSWER_TIMEOUT = 600.0  # seconds
_PREPARE_TIMEOUT = 3600.0
# `baselines` is imported as a top-level package: its environment may have no edge installed.
_PROGRAM = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1));"
    "runpy.run_module('baselines', None, '__main__')"
)
_ENGINES_FOLDER = Path(__file__).resolve().parent
_REPOSITORY = _ENGINES_FOLDER.parents[1]


@dataclasses.dataclass(frozen=True)
class TimedAnswers:
    """Milliseconds of each run; resident memory of the process and its peak, in bytes."""

    ms: list[float]
    rss: int
    peak_rss: int


def baselines_python() -> Path | None:
    """The Python interpreter of the baselines' environment (`make baselines`), if there is one.

    It is what EDGE_BASELINES_PYTHON names, else `.venv-baselines` in the current folder or in the
    repository.
    """
    given = os.environ.get("EDGE_BASELINES_PYTHON")
    if given:
        return Path(given) if Path(given).is_file() else None
    folders = (Path.cwd(), _REPOSITORY)
    places = [folder / ".venv-baselines" / "bin" / "python" for folder in folders]
    return next((place for place in places if place.is_file()), None)


class EngineProcess(LineProcess):
    """The process of one engine; `edge.bench.engines.baselines` describes requests and answers."""

    def __init__(self, spec: Spec, *, prepare: bool = False) -> None:
        """Start the process. `wait_until_ready` reads its first answer.

        Raises:
            EngineMissingError: the engine needs the baselines' environment, which does not exist.
        """
        interpreter: Path | None = Path(sys.executable)
        separate = engine_of(spec.engine, spec.target).separate
        if separate and (interpreter := baselines_python()) is None:
            raise EngineMissingError("the baselines' environment (make baselines)")
        fields = {**dataclasses.asdict(spec), "prepare": prepare}
        # -P: a folder `train` or `export` in the current folder must not be imported.
        command = [str(interpreter), "-P", "-c", _PROGRAM, str(_ENGINES_FOLDER)]
        super().__init__(
            [*command, json.dumps(fields, default=str)],
            process_environment(spec.threads, separate=separate),
        )

    def request(
        self, values: Mapping[str, Any], timeout: float = _ANSWER_TIMEOUT
    ) -> dict[str, Any]:
        """As `LineProcess.request`."""
        return super().request(values, timeout)

    def time(
        self, rows: Sequence[Sequence[int]], new_tokens: int, runs: int, warmup: int = 1
    ) -> TimedAnswers:
        """Time `runs` times the answers of exactly `new_tokens` to all `rows`.

        `warmup` untimed runs come before them.

        Raises:
            EngineFailedError: the engine reported an error, ended or timed out.
        """
        answer = self.request(
            {
                "rows": [list(row) for row in rows],
                "new_tokens": new_tokens,
                "runs": runs,
                "warmup": warmup,
            }
        )
        return TimedAnswers(answer["ms"], answer["rss"], answer["peak_rss"])


def prepare(spec: Spec) -> None:
    """Convert the model for an engine, in a separate process, whose memory is freed with it.

    Raises:
        EngineMissingError: a library of the engine is not installed.
        EngineFailedError: the conversion failed.
    """
    process = EngineProcess(spec, prepare=True)
    try:
        process.read_answer(_PREPARE_TIMEOUT)
    finally:
        process.close()


def start(spec: Spec) -> EngineProcess:
    """Start an engine's process and load the model.

    Raises:
        EngineMissingError: a library of the engine is not installed.
        EngineFailedError: the model can't be loaded.
    """
    return wait_until_ready(EngineProcess(spec), _ANSWER_TIMEOUT)
