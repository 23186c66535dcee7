"""The GPU suite: on CUDA the whole of it, on any machine its plumbing at tiny sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_runner import FailedError, Outcome, Part, Report, SkippedError, call_in_process, run_parts

SUITE = Path(__file__).with_name("gpu_suite.py")


def suite(results: Path, *arguments: str) -> dict[str, Any]:
    """Run the suite in a process of its own; its JSON."""
    ended = subprocess.run(
        [sys.executable, str(SUITE), "--json", str(results), *arguments],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr[-3000:]}"
    content: dict[str, Any] = json.loads(results.read_text())
    return content


def assert_passed(content: dict[str, Any], *, skipped: set[str]) -> None:
    statuses = {name: part["status"] for name, part in content["parts"].items()}
    assert {name for name, status in statuses.items() if status == "skipped"} == skipped
    assert set(statuses.values()) <= {"ok", "skipped"}


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_suite_passes_on_this_gpu(tmp_path: Path) -> None:
    content = suite(tmp_path / "gpu.json")
    statuses = {part["status"] for part in content["parts"].values()}
    assert statuses <= {"ok", "skipped", "not run"}
    assert content["seconds"] < 360


@pytest.mark.slow
def test_parts_run_on_a_cpu(tmp_path: Path) -> None:
    parts = "prepare,loss,bf16_full"
    content = suite(tmp_path / "cpu.json", "--device", "cpu", "--tiny", "--parts", parts)
    assert_passed(content, skipped=set())
    assert content["device"]["versions"]["torch"] == torch.__version__
    results = {name: part["result"] for name, part in content["parts"].items()}
    assert results["loss"]["relative_loss_difference"] == 0
    run = results["bf16_full"]
    assert (run["precision"], run["micro_batches"]) == ("bf16", 1)
    assert run["tokens_per_second"] > run["rows_per_second"] > 0


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    content = suite(tmp_path / "cpu.json", "--device", "cpu", "--tiny", "--budget", "900")
    assert_passed(content, skipped={"qlora", "adamw_8bit"})
    results = {name: part["result"] for name, part in content["parts"].items()}
    assert results["resume"]["resumed_is_bit_identical"]
    assert results["throughput"]["padding"]["token_budget"] < 0.1
    assert results["throughput"]["padding"]["fixed_padding"] > 0.2
    assert results["colab_t4"]["precision"] == "fp32"
    assert results["export"]["artifact"] == "onnx-int8"


def _add(context: int, done: dict[str, Any]) -> dict[str, Any]:
    return {"sum": context + sum(part["sum"] for part in done.values())}


def _hang(context: int, _: dict[str, Any]) -> dict[str, Any]:
    subprocess.run(["sleep", str(60 + context)])
    raise AssertionError("it was not killed")


def _crash(*_: Any) -> dict[str, Any]:
    os._exit(3)


def _fail(*_: Any) -> dict[str, Any]:
    raise FailedError("the loss is too high", {"loss": 9.0})


def _skip(*_: Any) -> dict[str, Any]:
    raise SkippedError("needs another GPU")


def test_a_part_that_hangs_crashes_or_fails_loses_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    report = Report(path, {"device": "none"})
    parts = [
        Part("first", _add, 30),
        Part("hangs", _hang, 0.3),
        Part("crashes", _crash, 30),
        Part("fails", _fail, 30),
        Part("skips", _skip, 30),
        Part("last", _add, 30),
    ]
    start = time.monotonic()
    run_parts(parts, 2, report, budget=60, method="fork")
    assert time.monotonic() - start < 20
    found = json.loads(path.read_text())["parts"]
    assert [found[part.name]["status"] for part in parts] == [
        *("ok", "timed out", "failed", "failed", "skipped", "ok"),
    ]
    assert found["last"]["result"] == {"sum": 4}
    assert found["fails"]["result"] == {"loss": 9.0}
    assert "exit code 3" in found["crashes"]["reason"]
    assert report.failures == ["hangs", "crashes", "fails"]


def test_parts_without_time_are_not_run(tmp_path: Path) -> None:
    report = Report(tmp_path / "results.json", {})
    parts = [Part("hangs", _hang, 30), Part("late", _add, 30)]
    run_parts(parts, 0, report, budget=1.2, method="fork")
    found = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert [found[name]["status"] for name in ("hangs", "late")] == ["timed out", "not run"]


def test_processes_can_be_started_afresh() -> None:
    outcome = call_in_process(json.loads, '{"sum": 1}', limit=60, method="spawn")
    assert outcome == Outcome("ok", outcome.seconds, {"sum": 1})
