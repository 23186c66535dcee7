"""`edge run --input --output` after a crash: no row lost, none answered twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.batch.parts import PART_SIZE

pytestmark = pytest.mark.alone

Edge = Callable[..., Any]
Refused = Callable[..., str]
SEEDED = ("--do-sample", "--seed", "5", "--max-new-tokens", "12")


def command(artifact: Path, source: Path, output: Path, *more: str) -> list[str]:
    program = [sys.executable, "-m", "edge.cli", "run", str(artifact)]
    return [*program, "--input", str(source), "--output", str(output), *more]


def journal_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial")


def kill_at(started: subprocess.Popen[bytes], journal: Path, lines: int) -> None:
    """SIGKILL once the journal has `lines` lines; the process must still be running then."""
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        assert started.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def source(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "rows.jsonl"
    lines = (dataset / "train.jsonl").read_text().splitlines()
    rows = [{**json.loads(line), "n": n} for n, line in enumerate(lines)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_killed_run_continues_to_the_same_bytes(
    artifacts: Path, source: Path, tmp_path: Path
) -> None:
    artifact = artifacts / "onnx-int8"
    whole, output = tmp_path / "whole.jsonl", tmp_path / "answers.jsonl"
    output.write_text("from yesterday")
    subprocess.run(command(artifact, source, whole, *SEEDED), check=True, capture_output=True)
    # Killed twice, the second time in the continued run, which replaces the output as the first.
    for lines, force in ((60, ["--force"]), (400, [])):
        running = subprocess.Popen(
            command(artifact, source, output, *SEEDED, *force), stderr=subprocess.DEVNULL
        )
        kill_at(running, journal_of(output), lines)
        assert output.read_text() == "from yesterday"
    kept = journal_of(output).read_bytes().count(b"\n") - 1
    with journal_of(output).open("ab") as handle:
        handle.write(b'{"input": "half a li')  # as a crash during a write leaves it
    ended = subprocess.run(
        command(artifact, source, output, *SEEDED), check=True, capture_output=True, text=True
    )
    resumed_at = int(ended.stderr.split("continuing after ")[1].split()[0].replace(",", ""))
    assert kept - PART_SIZE < resumed_at <= kept
    assert output.read_bytes() == whole.read_bytes()
    assert [json.loads(line)["n"] for line in output.open()] == list(range(1500))
    assert not journal_of(output).exists()
    assert {path.name for path in tmp_path.iterdir()} == {"whole.jsonl", "answers.jsonl"}


def test_another_run_is_not_continued(
    edge: Edge, assert_refused: Refused, artifacts: Path, dataset: Path, tmp_path: Path
) -> None:
    artifact, output = artifacts / "onnx-int8", tmp_path / "answers.txt"
    lines = tmp_path / "lines.txt"
    texts = [json.loads(line)["input"] for line in (dataset / "dev.jsonl").open()]
    # The row that is too long ends the run; the parts before its own are kept.
    lines.write_text("\n".join([*(texts * PART_SIZE)[: PART_SIZE + 4], "word " * 700]) + "\n")
    arguments = ("run", artifact, "--input", lines, "--output", output)
    assert "this artifact takes" in assert_refused(*arguments)
    assert not output.exists()
    assert "holds 256 answers" in assert_refused(*arguments, "--num-beams", 2)
    assert "other options (num_beams)" in assert_refused(*arguments, "--num-beams", 2)
    other = ("run", artifacts / "onnx-float32", *arguments[2:])
    assert "used another artifact" in assert_refused(*other)
    # Rows that fit under "error" have the same answer under "truncate".
    ended = edge(*arguments, "--on-long", "truncate")
    assert "continuing after 256 of 261 rows" in ended.err
    assert len(output.read_text().splitlines()) == 261

    output.unlink()
    assert_refused(*arguments)
    lines.write_text("\n".join(texts[:3]) + "\n")
    assert "that file has changed" in assert_refused(*arguments)
    assert edge(*arguments, "--force").status == 0
    assert len(output.read_text().splitlines()) == 3
    assert not journal_of(output).exists()


def test_two_processes_never_share_an_output(
    assert_refused: Refused, artifacts: Path, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    running = subprocess.Popen(
        command(artifacts / "onnx-int8", source, output), stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while not journal_of(output).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(signal.SIGSTOP)
        line = assert_refused(
            *("run", artifacts / "onnx-int8", "--input", source, "--output", output, "--force")
        )
        assert "another process is writing to it" in line
    finally:
        running.kill()
        running.communicate()


def test_damaged_journals(tmp_path: Path) -> None:
    from edge.runtime.batch.journal import open_journal
    from edge.runtime.errors import OutputExistsError, UsageError

    output = tmp_path / "out.txt"
    fingerprint = {"artifact": "a", "input": "b", "options": {}}
    with pytest.raises(KeyboardInterrupt), open_journal(output, fingerprint) as journal:
        journal.append(["one", "two", "three"])
        raise KeyboardInterrupt
    path = journal_of(output)
    header, *_ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + b"one\n\0\0\0\0\nthree\n")  # a power failure
    with open_journal(output, fingerprint) as journal:
        assert journal.lines == 1
        journal.truncate(1)
        journal.append(["zwei"])
        journal.publish()
    assert output.read_text() == "one\nzwei\n"
    path.write_bytes(header[:20])  # killed during the first write
    with open_journal(output, fingerprint) as journal:
        assert journal.lines == 0
    path.write_text("somebody's notes\n")
    with (
        pytest.raises(OutputExistsError, match="unknown format or version"),
        open_journal(output, fingerprint),
    ):
        pass
    assert path.read_text() == "somebody's notes\n"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="symbolic link"), open_journal(output, fingerprint):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_run_refuses_invalid_outputs(
    assert_refused: Refused, artifacts: Path, dataset: Path, tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"input": "who made it?"}\n')
    arguments = ("run", artifacts / "onnx-int8", "--input", source, "--output")
    assert "is a folder" in assert_refused(*arguments, tmp_path)
    assert "would replace an input" in assert_refused(*arguments, source)
    assert "not a regular file" in assert_refused(*arguments, os.devnull)
    line = assert_refused("run", artifacts / "onnx-int8", "x", "--force")
    assert "--force needs --output" in line
