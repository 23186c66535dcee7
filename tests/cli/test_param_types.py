"""Numbers that no option takes: a target or ratio that is no number, a seed out of range."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

Refused = Callable[..., str]


@pytest.mark.parametrize("value", ["nan", "0", "-5", "inf", "1e999", "x"])
def test_a_target_is_a_positive_number(assert_refused: Refused, tmp_path: Path, value: str) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"input": "a", "target": "b"}\n')
    for call in (
        ("bench", "artifact", "--data", data),
        ("bench-engines", "flan-t5-small"),
        ("compile", "model", "--data", data, "-o", tmp_path / "out"),
        ("quickstart", "-o", tmp_path / "demo"),
        ("serve", "artifact"),
        ("chat", "artifact"),
    ):
        line = assert_refused(*call, f"--target-ms={value}")
        assert "--target-ms" in line
        assert "finite number above 0" in line or "not a number" in line
    ratio = assert_refused("compare", data, data, f"--fail-slower={value}")
    assert "at least 1" in ratio or "not a number" in ratio
    assert not (tmp_path / "demo").exists()


def test_targets_of_the_library_are_checked_too() -> None:
    from edge.bench.engines.results import Settings
    from edge.bench.timing.verdict import check_target
    from edge.runtime.errors import UsageError

    for value in (float("nan"), 0.0, float("inf")):
        with pytest.raises(UsageError, match="--target-ms"):
            check_target(value)
        with pytest.raises(UsageError, match="--target-ms"):
            Settings(target_ms=value)


@pytest.mark.parametrize("seed", [-1, 2**32, 99999999999999999999])
def test_a_seed_is_below_2_to_the_32(assert_refused: Refused, tmp_path: Path, seed: int) -> None:
    for call in (
        ("run", "artifact", "text", "--do-sample"),
        ("chat", "artifact", "--do-sample"),
        ("export", "model", "-f", "onnx", "-o", tmp_path / "a", "--do-sample"),
        ("quickstart", "-o", tmp_path / "demo"),
        ("data", "augment", tmp_path / "rows.jsonl", "--noise", "-o", tmp_path / "b.jsonl"),
        ("train", "data", "--model", "m", "-o", tmp_path / "m"),
        ("check", "data", "--model", "m"),
    ):
        line = assert_refused(*call, f"--seed={seed}")
        assert "seed" in line
        assert "4294967295" in line or "less than 10^18" in line  # the limit of YAML


def test_quickstart_refuses_few_runs_before_it_trains(
    assert_refused: Refused, tmp_path: Path
) -> None:
    began = time.monotonic()
    line = assert_refused("quickstart", "-o", tmp_path / "demo", "--runs", 5)
    assert "--runs must be at least 30" in line
    assert not (tmp_path / "demo").exists()
    assert time.monotonic() - began < 60
