"""Shell completion of commands, formats and presets, and the hints of `edge export`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Edge = Callable[..., Any]
Refused = Callable[..., str]
PROGRAM = Path(sys.executable).with_name("edge")


def completed(line: str) -> list[str]:
    """What the shell is offered for the last word of the line."""
    words = line.split(" ")
    ended = subprocess.run(
        [PROGRAM],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_EDGE_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
    )
    assert ended.returncode == 0, ended.stderr
    return [entry.partition(",")[2] for entry in ended.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("edge benc", ["bench", "bench-engines", "bench-speculation"]),
        ("edge export model --format ", ["torchscript", "onnx", "ctranslate2", "gguf", "all"]),
        ("edge export model -f o", ["onnx"]),
        ("edge compile model --format g", ["gguf"]),
        ("edge train data --preset c", ["colab-t4", "cpu", "cuda"]),
        ("edge train data --method ", ["full", "lora", "qlora"]),
        ("edge train data --from-scratch t", ["tiny"]),
        ("edge run artifact --on-long c", ["chunk"]),
    ],
)
def test_values_complete(line: str, expected: list[str]) -> None:
    assert completed(line) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_line_prints_a_script(shell: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "install.md").read_text()
    assert f"_EDGE_COMPLETE={shell}_source edge" in page
    ended = subprocess.run(
        [PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "_EDGE_COMPLETE": f"{shell}_source"},
    )
    assert ended.returncode == 0, ended.stderr
    assert "edge" in ended.stdout


def test_export_without_a_format_lists_them(assert_refused: Refused) -> None:
    line = assert_refused("export", "model", "--output", "out")
    assert "give --format" in line
    for name in ("onnx", "ctranslate2", "gguf", "torchscript", "all"):
        assert name in line


def test_the_next_step_proposes_the_fastest(edge: Edge, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    ended = edge(
        *("export", trained, "-f", "torchscript", "-f", "onnx", "-q", "none", "-q", "int8"),
        *("-o", output),
    )
    assert ended.status == 0, ended.err
    assert f"edge run {output / 'onnx-int8'} " in ended.out.splitlines()[-1]
