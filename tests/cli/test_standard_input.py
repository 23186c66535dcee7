"""`-` is standard input in every command; pipes that close and terminals that wait."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from test_surface import COMMANDS

from edge.cli.param_types import InputPath

Refused = Callable[..., str]

EDGE = (sys.executable, "-m", "edge.cli")
TEXTS = ("who uh who made it?", "when was it um built?")
# Files that a command writes, changes or takes as a folder; all others may be `-`.
NOT_READ = {"--compare-artifact", 
    "--output", "--markdown", "--html", "--plots", "--plot", "--histogram", "--json", "--cache",
    "--reference", "--tokenizer",
}  # fmt: skip


def run(*arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDGE, *map(str, arguments)], input=text, capture_output=True, text=True, timeout=120
    )


def test_every_option_that_reads_a_file_takes_a_dash() -> None:
    for words, command in COMMANDS.items():
        for param in command.params:
            if isinstance(param, click.Option) and isinstance(param.type, click.Path):
                reads = not NOT_READ & {*param.opts}
                assert isinstance(param.type, InputPath) == reads, (words, param.opts)


def test_run(artifacts: Path) -> None:
    artifact = artifacts / "onnx-int8"
    lines = "\n".join(TEXTS) + "\n"
    expected = run("run", artifact, text=lines)
    assert expected.returncode == 0, expected.stderr
    assert len(expected.stdout.splitlines()) == 2
    for arguments in (("-",), ("--input", "-"), ("--input", "-", "--output", "-")):
        assert run("run", artifact, *arguments, text=lines).stdout == expected.stdout
    rows = "".join(json.dumps({"input": text, "id": n}) + "\n" for n, text in enumerate(TEXTS))
    answered = run("run", artifact, "--input", "-", text=rows)
    found = [json.loads(line) for line in answered.stdout.splitlines()]
    assert [row["output"] for row in found] == expected.stdout.splitlines()
    assert [row["id"] for row in found] == [0, 1]


def test_data_and_schemas(artifacts: Path, dataset: Path, trained: Path) -> None:
    rows = (dataset / "dev.jsonl").read_text()
    benched = run(
        *("bench", artifacts / "onnx-int8", "--data", "-", "-n", 5, "--runs", 30),
        *("--min-time", 0, "--target-ms", 60_000, "--json", "-"),
        text=rows,
    )
    assert json.loads(benched.stdout)["data"]["rows"] == 5, benched.stderr
    shown = run("report", "-", text=benched.stdout)
    assert "exact match" in shown.stdout, shown.stderr
    counted = run("data", "lengths", "-", "--model", trained, text=rows)
    assert "recommended:" in counted.stdout, counted.stderr
    checked = run(
        *("run", artifacts / "onnx-int8", "x", "--output-schema", "-"), text='{"type": "object"}'
    )
    assert "not JSON" in checked.stderr


def test_a_second_dash_is_refused(artifacts: Path) -> None:
    ended = run("compare", "-", "-", text="{}")
    assert ended.returncode == 2
    assert "standard input can be read only once" in ended.stderr


def test_an_endless_line_as_data(artifacts: Path) -> None:
    command = [*EDGE, "bench", str(artifacts / "onnx-int8"), "--data", "-"]
    with Path("/dev/zero").open("rb") as zero:
        ended = subprocess.run(command, stdin=zero, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr == "edge: standard input:1: the line is longer than 8 MiB\n"


@pytest.mark.parametrize("command", ["info ARTIFACT", "presets", "run ARTIFACT --input ROWS"])
def test_a_reader_that_closes_the_pipe(artifacts: Path, tmp_path: Path, command: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"input": TEXTS[0]}) + "\n")
    rows.write_text(rows.read_text() * 40)
    named = {"ARTIFACT": str(artifacts / "onnx-int8"), "ROWS": str(rows)}
    words = " ".join(f"'{named.get(word, word)}'" for word in command.split())
    script = f"set -o pipefail; '{sys.executable}' -m edge.cli {words} | head -1"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(ended.stdout.splitlines()) == 1
    # The pipe is closed before anything is written.
    script = f"'{sys.executable}' -m edge.cli {words} > >(true); sleep 0"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("command", [("info",), ("run", "x")])
def test_closed_standard_output(artifacts: Path, command: tuple[str, ...]) -> None:
    name, *rest = command
    line = [*EDGE, name, str(artifacts / "onnx-int8"), *rest]
    ended = subprocess.run(
        ["bash", "-c", 'exec "$@" >&-', "bash", *line], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert ended.stderr == "edge: standard output can't be written: it is closed\n"


def test_on_a_terminal_the_command_says_what_it_waits_for(artifacts: Path) -> None:
    main, child = pty.openpty()
    with subprocess.Popen(
        [*EDGE, "run", str(artifacts / "onnx-int8")],
        stdin=child,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TERM": "dumb"},
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == (
            "reading standard input and answering each line; end it with Ctrl-D\n"
        )
        os.write(main, b"who uh who made it?\n")
        time.sleep(0.1)
        os.write(main, b"\x04")
        out, _ = process.communicate(timeout=60)
    os.close(main)
    os.close(child)
    assert process.returncode == 0
    assert len(out.splitlines()) == 1
