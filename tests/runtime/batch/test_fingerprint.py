"""Fingerprints of runs: answers under different checks are never mixed."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge.runtime import Guardrails
from edge.runtime.batch.callables import callable_fingerprint
from edge.runtime.batch.job import BatchJob


@dataclass
class Longer:
    """A check with a setting."""

    limit: int

    def __call__(self, text: str) -> str | None:
        return self.check(text)

    def check(self, text: str) -> str | None:
        return None if len(text) > self.limit else "too short"


def longer(limit: int, text: str) -> str | None:
    return Longer(limit)(text)


def local(limit: int) -> Callable[[str], str | None]:
    return lambda text: None if len(text) > limit else "too short"


CHECKS: dict[str, Callable[[], Any]] = {
    "objects": lambda: (Longer(1), Longer(2)),
    "methods": lambda: (Longer(1).check, Longer(2).check),
    "methods of builtins": lambda: ("a".join, "b".join),
    "partials": lambda: (functools.partial(longer, 1), functools.partial(longer, 2)),
    "captured values": lambda: (local(1), local(2)),
    "lambdas": lambda: (lambda text: None, lambda text: "bad"),
    "functions": lambda: (os.path.basename, os.path.dirname),
}


@pytest.mark.parametrize("name", CHECKS)
def test_different_checks_have_different_fingerprints(name: str) -> None:
    first, second = map(callable_fingerprint, CHECKS[name]())
    assert first != second
    assert [first, second] == [*map(callable_fingerprint, CHECKS[name]())]


def test_functions_of_modules_are_their_names() -> None:
    assert callable_fingerprint(longer) == f"{__name__}.longer"
    assert callable_fingerprint(os.path.basename) == "posixpath.basename"
    assert callable_fingerprint(len) == "builtins.len"


def test_what_has_no_content_equals_nothing() -> None:
    def check(text: str) -> str | None:
        return inner(text)

    inner = local(3)
    assert callable_fingerprint(check) != callable_fingerprint(check)


_PRINT = """
import functools
from edge.runtime.batch.callables import callable_fingerprint
def local():
    words = ("a", "b")
    return lambda text: None if text in {"x", "y", "z"} or text in words else "another"
print(callable_fingerprint(local()), callable_fingerprint(functools.partial(pow, 2)))
"""


def test_fingerprints_are_the_same_in_every_process() -> None:
    found = [
        subprocess.run(
            [sys.executable, "-c", _PRINT],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]


def test_a_run_under_another_check_is_another_run(tmp_path: Path) -> None:
    (tmp_path / "edge.json").write_text("{}")
    jobs = [BatchJob(tmp_path, guardrails=Guardrails(output=Longer(n))) for n in (1, 1, 2)]
    first, same, other = (job.fingerprint()["options"] for job in jobs)
    assert first == same
    assert {name for name in first if first[name] != other[name]} == {"output"}
