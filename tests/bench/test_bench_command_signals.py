"""SIGTERM and SIGHUP during the other measuring commands; destinations that can't be written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.bench.documents import read_json


def stop_after(words: list[object], file: Path, number: signal.Signals) -> tuple[int, str]:
    """Start a command, send it a signal once `file` exists, and return its status and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 180
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def test_bench_engines_keeps_what_was_measured(
    mark_onnx: Callable[[Path, int], None], trained: Path, tmp_path: Path
) -> None:
    mark_onnx(tmp_path / "answered", 40)
    report = tmp_path / "report.json"
    words = ["bench-engines", trained, "-f", "onnx", "-q", "int8", "--runs", 200_000]
    words += ["--cache", tmp_path / "cache", "--json", report, "--max-threads", 1]
    status, err = stop_after(words, tmp_path / "answered", signal.SIGTERM)
    assert status == 128 + signal.SIGTERM, err
    assert "edge: stopped by SIGTERM: the report holds what was measured" in err
    [found] = read_json(report)["reports"]
    assert found["interrupted"]


def test_bench_speculation_keeps_the_artifacts_that_were_measured(
    mark_onnx: Callable[[Path, int], None], artifacts: Path, dataset: Path, tmp_path: Path
) -> None:
    # The first artifact takes under 300 answers, the second is stopped in the middle.
    mark_onnx(tmp_path / "answered", 400)
    report = tmp_path / "report.json"
    words: list[object] = ["bench-speculation", artifacts / "onnx-int8", artifacts / "onnx-float32"]
    words += ["--data", dataset / "dev.jsonl", "--json", report]
    status, err = stop_after(words, tmp_path / "answered", signal.SIGHUP)
    assert status == 128 + signal.SIGHUP, err
    assert "edge: stopped by SIGHUP: 1 of 2 artifacts were measured" in err
    assert len(read_json(report)["reports"]) == 1


def test_tune_leaves_the_manifest_whole(
    mark_onnx: Callable[[Path, int], None], artifacts: Path, tmp_path: Path
) -> None:
    mark_onnx(tmp_path / "answered", 40)
    before = (artifacts / "onnx-int8" / "edge.json").read_bytes()
    words = ["tune", artifacts / "onnx-int8", "--runs", 200_000, "--threads-to-try", 1]
    status, err = stop_after(words, tmp_path / "answered", signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert "stopped by SIGTERM: settings are stored in 0 of 1 artifacts" in err
    assert (artifacts / "onnx-int8" / "edge.json").read_bytes() == before


@pytest.mark.parametrize("command", ["bench-engines", "bench-speculation", "compile"])
def test_destinations_that_cant_be_written_are_refused_first(
    assert_refused: Callable[..., str],
    artifacts: Path,
    trained: Path,
    dataset: Path,
    tmp_path: Path,
    command: str,
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    if command == "compile":
        words = (trained, "--data", dataset, "--output", file / "out")
        assert "can't be written" in assert_refused(command, *words, status=1)
        return
    first = trained if command == "bench-engines" else artifacts / "onnx-int8"
    data = () if command == "bench-engines" else ("--data", dataset / "dev.jsonl")
    line = assert_refused(command, first, *data, "--json", file / "report")
    assert f"--json {file / 'report'} can't be written" in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_speculation_on_standard_output_is_json_alone(
    edge: Callable[..., object], artifacts: Path, dataset: Path
) -> None:
    words = ("bench-speculation", artifacts / "onnx-int8", "--data", dataset / "dev.jsonl")
    ended = edge(*words, "--limit", 5, "--json", "-")
    assert json.loads(ended.out)["kind"] == "speculation"  # type: ignore[attr-defined]
