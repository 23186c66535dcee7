"""`edge export`: what `--quantize auto` chose is shown, and a signal leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Edge = Callable[..., Any]


def test_what_auto_compared_is_shown(
    edge: Edge, trained: Path, dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    ended = edge(
        *("export", trained, "--format", "onnx", "--calibrate", dataset / "train.jsonl"),
        *("--output", output),
    )
    assert ended.status == 0, ended.err
    [line] = [line.strip() for line in ended.out.splitlines() if line.strip().startswith("auto: ")]
    assert line.startswith("auto: int4 keeps ")
    shown = edge("info", output).out
    [chosen] = [one for one in shown.splitlines() if one.startswith("chosen ")]
    assert chosen.endswith(f"by --quantize {line}")


def test_a_signal_leaves_nothing(trained: Path, dataset: Path, tmp_path: Path) -> None:
    """Neither beside the output nor in the folder for temporary files, where auto writes."""
    temporary, output = tmp_path / "temporary", tmp_path / "output"
    temporary.mkdir()
    words = ("export", trained, "--format", "onnx", "--calibrate", dataset / "train.jsonl")
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli", *map(str, words), "--output", str(output / "artifact")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    deadline = time.monotonic() + 120
    while not list(temporary.glob("edge-auto-*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.strip().splitlines()[-1].startswith("edge: stopped by SIGTERM: artifacts that are")
    assert not list(temporary.iterdir())
    assert not output.exists() or not list(output.iterdir())
