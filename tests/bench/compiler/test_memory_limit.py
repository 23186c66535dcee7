"""How many trials run at once, by the memory that a container leaves free."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.bench.compiler import trials
from edge.runtime.platform.memory import free_memory


@pytest.mark.parametrize(("limit", "groups"), [("max", 1), (str(3 << 30), 2), (str(1 << 29), 8)])
def test_trials_run_together_within_the_containers_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, groups: int
) -> None:
    (tmp_path / "meminfo").write_text(f"MemAvailable: {64 << 20} kB\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("0")
    within = partial(free_memory, proc=tmp_path, cgroups=tmp_path)
    monkeypatch.setattr(trials, "free_memory", within)
    monkeypatch.setattr(trials.TrialRunner, "export", lambda self, spec: {"size": 64 << 20})
    unused: Any = None
    runner = trials.TrialRunner(unused, [], {}, lambda _: None)
    candidates: list[Any] = [SimpleNamespace(spec=number) for number in range(8)]
    assert len(runner.groups(candidates)) == groups
