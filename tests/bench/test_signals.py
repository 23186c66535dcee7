"""SIGTERM, SIGHUP and a closed terminal during `edge bench`; destinations that can't be written."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from edge.bench.report.document import read_document
from edge.bench.report.write import Outputs
from edge.bench.signals import SignalReceivedError, signals_as_interrupt
from edge.runtime.errors import UsageError


@pytest.fixture
def command(
    artifacts: Path, dataset: Path, tmp_path: Path, mark_onnx: Callable[[Path, int], None]
) -> list[str]:
    """A benchmark that would take hours; `answered` appears once it has measured something."""
    mark_onnx(tmp_path / "answered", 60)
    files = ("--json", tmp_path / "report.json", "--html", tmp_path / "report.html")
    words = ("bench", artifacts / "onnx-int8", "--data", dataset / "dev.jsonl", *files)
    words += ("--runs", 200_000)
    return [sys.executable, "-m", "edge.cli", *map(str, words)]


def wait_for(file: Path, process_ended: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not file.exists():
        assert not process_ended()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_report(folder: Path) -> None:
    document = read_document(folder / "report.json")
    assert document["interrupted"]
    assert document["results"][0]["latency"]["runs"] >= 5
    assert "onnx int8" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_what_was_measured(
    command: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(tmp_path / "answered", lambda: process.poll() is not None)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    process.send_signal(number)  # a second one does not cut the report off
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "onnx int8" in out
    assert f"edge: stopped by {number.name}: the report holds what was measured" in err
    check_report(tmp_path)
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() for child in children)


def test_a_closed_terminal_keeps_what_was_measured(command: list[str], tmp_path: Path) -> None:
    """Closing a terminal sends SIGHUP and makes every write to it fail."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(command[0], command)
    reader = threading.Thread(target=_drain, args=(terminal,), daemon=True)
    reader.start()
    wait_for(tmp_path / "answered", lambda: os.waitpid(child, os.WNOHANG)[0] != 0)
    os.close(terminal)
    deadline = time.monotonic() + 60
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    check_report(tmp_path)


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        pass


def test_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SignalReceivedError) as received, signals_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert received.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_destinations_that_cant_be_written_are_refused_first(
    assert_refused: Callable[..., str], artifacts: Path, dataset: Path, tmp_path: Path
) -> None:
    arguments = ("bench", artifacts / "onnx-int8", "--data", dataset / "dev.jsonl")
    file = tmp_path / "file"
    file.write_text("")
    for option in ("--json", "--html", "--markdown"):
        line = assert_refused(*arguments, option, file / "report")
        assert f"{option} {file / 'report'} can't be written" in line
        assert f"{option} must name a file" in assert_refused(*arguments, option, tmp_path)
    assert "--plots" in assert_refused(*arguments, "--plots", file / "plots")
    with pytest.raises(UsageError, match="/proc"):
        Outputs(json=Path("/proc/report.json")).check()
    Outputs(json=tmp_path / "new" / "report.json").check()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_json_on_standard_output_is_json_alone(
    edge: Callable[..., Any], artifacts: Path, dataset: Path
) -> None:
    arguments = ("bench", artifacts / "onnx-int8", "--data", dataset / "dev.jsonl", "--limit", 5)
    ended = edge(*arguments, "--target-ms", 60_000, "--json", "-")
    assert json.loads(ended.out)["kind"] == "artifacts"
    assert "onnx int8" in ended.err
