"""The energy meter on folders like those of Linux' powercap."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.bench.timing.energy import EnergyMeter
from edge.bench.timing.latency import Samples

_TURN = {
    name: [2.0, 2.0]
    for name in (
        "ms",
        "tokenize_ms",
        "generate_ms",
        "detokenize_ms",
        "first_ms",
        "first_generate_ms",
        "new_tokens",
        "longest",
    )
} | {"seconds": 1.0, "peak_rss": 1}


def _zone(folder: Path, number: str, name: str, energy: int) -> Path:
    zone = folder / f"intel-rapl:{number}"
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{name}\n")
    (zone / "energy_uj").write_text(f"{energy}\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    return zone


def test_packages_are_added_and_counters_may_start_again(tmp_path: Path) -> None:
    first = _zone(tmp_path, "0", "package-0", 1_000_000)
    second = _zone(tmp_path, "1", "package-1", 262_143_000_000)
    core = _zone(tmp_path, "0:0", "core", 0)
    meter = EnergyMeter(tmp_path)
    assert meter.joules() == 0
    (first / "energy_uj").write_text("3500000\n")
    (second / "energy_uj").write_text("671150\n")
    (core / "energy_uj").write_text("900000000\n")
    assert meter.joules() == pytest.approx(2.5 + 1.0)


def test_what_can_not_be_read_is_not_measured(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path / "none").joules() is None
    zone = _zone(tmp_path, "0", "package-0", 1)
    meter = EnergyMeter(tmp_path)
    (zone / "energy_uj").unlink()
    assert meter.joules() is None


def test_energy_per_answer_is_that_of_all_turns() -> None:
    samples = Samples()
    samples.add(_TURN | {"joules": 3.0})
    samples.add(_TURN | {"joules": 5.0})
    found = samples.summary(batch=2, load_ms=0, cold_start_ms=0)
    assert found.joules_per_answer == 1.0
    samples.add(_TURN | {"joules": None})
    assert samples.summary(batch=2, load_ms=0, cold_start_ms=0).joules_per_answer is None
