"""Checks before a training run, which report all problems together.

No model is loaded: configuration, tokenizer and rows are enough. The weights of a local folder are
compared with its configuration by their headers, and read one tensor at a time, to find NaN.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.runtime.errors import EdgeError, PreflightError
from edge.train.config import TrainConfig
from edge.train.preflight import environment, resources, text, vocabulary
from edge.train.preflight.checks import (
    FAILED,
    OK,
    SKIPPED,
    WARNING,
    Check,
    Findings,
    PreflightContext,
)
from edge.train.preflight.environment import LIBRARIES

__all__ = [
    "FAILED",
    "LIBRARIES",
    "OK",
    "SKIPPED",
    "WARNING",
    "Check",
    "PreflightContext",
    "preflight",
    "require_ready",
]

Checks = Sequence[tuple[str, Callable[[PreflightContext], Findings]]]  # by name

_CHECKS: Checks = (
    ("environment", environment.libraries),
    ("device", environment.device),
    ("data", environment.data),
    ("model", environment.model),
    ("vocabulary", vocabulary.lost_characters),
    ("tokenizer", text.special_tokens),
    ("round trip", text.round_trip),
    ("lengths", text.lengths_in_range),
    ("output cap", text.output_cap),
    ("evaluation parity", text.evaluation_parity),
    ("memory", resources.memory),
    ("disk", resources.disk),
    ("output", resources.output),
)


def preflight(
    config: TrainConfig, *, check_output: bool = True, further: Checks = ()
) -> list[Check]:
    """Run every check on the training run that `config` describes.

    Every check runs even if others fail, so that all problems are reported together.

    Args:
        config: The run.
        check_output: Whether to check that the output folder can be written.
        further: Checks to run after the others, of what follows the training.

    Raises:
        UsageError: A hyperparameter is invalid.
    """
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="edge-check-") as work_dir:
        context = PreflightContext(config.resolved(), Path(work_dir), check_output)
        for name, run_check in (*_CHECKS, *further):
            try:
                found = [Check(name, status, detail) for status, detail in run_check(context)]
            except EdgeError as error:
                found = [Check(name, FAILED, str(error))]
            checks += found or [Check(name, SKIPPED, "skipped: an earlier check failed")]
            if name == "environment" and checks[-1].status == FAILED:
                break  # the other checks need the libraries
    return checks


def require_ready(config: TrainConfig, *, further: Checks = ()) -> None:
    """Run every check and refuse the run if one fails.

    Args:
        config: The run.
        further: As in `preflight`.

    Raises:
        PreflightError: Everything that failed, in one line.
    """
    failed = [check for check in preflight(config, further=further) if check.status == FAILED]
    if failed:
        reasons = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        raise PreflightError(f"{reasons} (edge check shows all checks; --no-check skips them)")
