"""Closed, endless and unreadable streams and odd names: one sentence, and bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from artifact_forgery import forge

Refused = Callable[..., str]
COMMAND = (sys.executable, "-m", "edge.cli")


def ended(shell: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `edge ARGUMENTS`, with the shell's redirections behind it."""
    line = f'ulimit -v 6000000; exec "$@" {shell}'
    return subprocess.run(
        ["bash", "-c", line, "bash", *COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
@pytest.mark.parametrize("command", ["run", "chat"])
def test_an_endless_line_on_standard_input(artifacts: Path, command: str) -> None:
    found = ended("</dev/zero", command, artifacts / "onnx-int8")
    assert found.returncode == 2
    assert found.stderr == "edge: standard input:1: the line is longer than 8 MiB\n"


@pytest.mark.parametrize("command", ["run", "chat"])
def test_closed_standard_input(artifacts: Path, command: str) -> None:
    found = ended("<&-", command, artifacts / "onnx-int8")
    assert found.returncode == 2
    assert found.stderr.startswith("edge: standard input is closed")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs /proc")
def test_a_disk_that_fails(assert_refused: Refused, artifacts: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.symlink_to("/proc/self/mem")
    line = assert_refused("run", artifacts / "onnx-int8", "--input", path)
    assert line == f"edge: {path}: can't be read (Input/output error)"


def test_names_at_the_limit(
    edge: Callable[..., object], assert_refused: Refused, artifacts: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "when was it built?"}\n')
    call = ("run", artifacts / "onnx-int8", "--input", rows, "--output")
    long = tmp_path / ("a" * 249 + ".jsonl")
    edge(*call, long)
    assert len(long.read_text().splitlines()) == 1
    line = assert_refused(*call, tmp_path / ("a" * 300 + ".jsonl"), status=1)
    assert "the name is too long" in line


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx", "speculative.onnx"])
def test_verify_opens_every_graph(
    assert_refused: Refused, artifacts: Path, tmp_path: Path, name: str
) -> None:
    """These are opened by other searches than the plain one."""
    folder = forge(
        artifacts / "onnx-int8", tmp_path / "forged", lambda copy: (copy / name).write_bytes(b"")
    )
    assert f"{name}: the file is empty" in assert_refused("verify", folder)


def test_two_pairs_of_columns_are_not_guessed(
    assert_refused: Refused, artifacts: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"question": "a", "answer": "b", "source": "c", "target": "d"}
    path.write_text(json.dumps(row) + "\n")
    line = assert_refused("bench", artifacts / "onnx-int8", "--data", path)
    assert "no column 'input'; this row has: 'question', 'answer', 'source', 'target'" in line
