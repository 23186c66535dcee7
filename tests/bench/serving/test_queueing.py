"""Simulated queues against what queueing theory gives in closed form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge.bench.serving.queueing import (
    NEW_TOKENS,
    EngineTimes,
    compare_policies,
    main,
    simulate_batches,
    simulate_joining,
)


def constant(once: float, step: float, rows: int = 4) -> EngineTimes:
    return EngineTimes((once,) * rows, (step,) * rows)


def poisson(rate: float, count: int = 40_000) -> list[float]:
    gaps = np.random.default_rng(1).exponential(1 / rate, count)
    arrivals: list[float] = np.cumsum(gaps).tolist()
    return arrivals


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8])
def test_a_queue_of_single_requests_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: the mean wait is load / (2 (1 - load)) services."""
    times = constant(0.2, 0.8 / NEW_TOKENS)
    found = simulate_batches(poisson(load), times, largest=1)
    assert found.min() == pytest.approx(1.0)
    assert found.mean() == pytest.approx(1 + load / (2 * (1 - load)), rel=0.05)


def test_a_second_worker_shortens_the_wait() -> None:
    times = constant(0.0, 1 / NEW_TOKENS)
    arrivals = poisson(0.8)
    one = simulate_batches(arrivals, times, largest=1)
    two = simulate_batches(arrivals, times, largest=1, workers=2)
    assert np.percentile(two, 95) < 0.5 * np.percentile(one, 95)


def test_requests_that_come_together_share_a_batch() -> None:
    times = constant(0.0, 1 / NEW_TOKENS)
    found = simulate_batches([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], times)
    # The first computes alone, then four, then the last.
    np.testing.assert_allclose(found, [1.0, 1.9, 1.8, 1.7, 1.6, 2.5])


@pytest.mark.parametrize("every", [1, 4, NEW_TOKENS])
def test_a_request_joins_at_the_next_opportunity(every: int) -> None:
    step = 1 / NEW_TOKENS
    found = simulate_joining([0.0, 0.3], constant(0.0, step), every=every)
    joins = -(-0.3 // (every * step)) * every * step
    np.testing.assert_allclose(found, [1.0, joins + 1.0 - 0.3])


def test_joining_waits_for_a_free_row() -> None:
    found = simulate_joining([0.0] * 5, constant(0.0, 1 / NEW_TOKENS), every=1)
    np.testing.assert_allclose(found, [1.0] * 4 + [2.0])


def test_more_rows_that_cost_nothing_raise_the_capacity() -> None:
    outcomes = {one.policy: one for one in compare_policies(*[constant(0.0, 0.05)] * 2)}
    batches, joining = (
        outcomes[f"{name}, 2 threads"] for name in ("batches", "joining every step")
    )
    assert batches.capacity == joining.capacity == pytest.approx(4 / 0.8)
    assert outcomes["one by one, 2 threads"].capacity == pytest.approx(1 / 0.8)
    assert joining.p95 < 0.9 * batches.p95


def test_joining_at_each_step_encodes_more_often() -> None:
    outcomes = {one.policy: one for one in compare_policies(*[constant(0.1, 0.05)] * 2)}
    every_step, every_8 = (
        outcomes[f"joining every {name}, 2 threads"] for name in ("step", "8 steps")
    )
    assert every_step.capacity < every_8.capacity < outcomes["batches, 2 threads"].capacity


@pytest.mark.alone  # two threads, which wait for each other where another test has a core
def test_the_command(artifacts: Path, tmp_path: Path) -> None:
    report = tmp_path / "queue.json"
    ended = CliRunner().invoke(
        main, [str(artifacts / "onnx-int8"), "--runs", "3", "--json", str(report)]
    )
    assert ended.exit_code == 0, ended.output
    found = json.loads(report.read_text())
    assert len(found["policies"]) == len(ended.stdout.splitlines()) - 1
    assert all(len(times["step"]) == 16 for times in found["times"].values())
