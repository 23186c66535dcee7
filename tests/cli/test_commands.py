"""The commands of `edge`: answers on stdout, one line on stderr for an error."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.install import install_command

Edge = Callable[..., Any]
Refused = Callable[..., str]


def test_version_and_unknown_command(edge: Edge, assert_refused: Refused) -> None:
    version = edge("--version").out
    assert version.startswith("edge ")
    for arguments in (["version"], ["-V"], ["-v"]):
        assert edge(*arguments).out == version
    for program in ("edge", "edge.cli"):
        command = [sys.executable, "-m", program, "--version"]
        assert subprocess.run(command, capture_output=True, text=True).stdout == version
    assert "Did you mean 'bench'" in assert_refused("benhc")
    assert "--help" in assert_refused("info")
    assert "No such option" in assert_refused("info", "--jsn", "x")


@pytest.mark.parametrize("words", [(), ("data",)])
def test_without_a_command_the_help_is_shown(edge: Edge, words: tuple[str, ...]) -> None:
    ended = edge(*words)
    assert (ended.status, ended.err) == (2, "")
    assert ended.out == edge(*words, "--help").out
    assert "\n  split " in ended.out or "\n  bench " in ended.out


def test_run_answers_a_text(edge: Edge, artifacts: Path) -> None:
    artifact = artifacts / "onnx-int8"
    plain = edge("run", artifact, "where was um was the bridge built?")
    assert plain.status == 0
    assert plain.out.strip()
    streamed = edge("run", artifact, "where was um was the bridge built?", "--stream")
    assert streamed.out == plain.out
    detailed = json.loads(
        edge("run", artifact, "where was um was the bridge built?", "--jsonl").out
    )
    assert detailed["text"] == plain.out.rstrip("\n")
    assert detailed["timings"]["total_ms"] > 0
    short = edge("run", artifact, "where was um was the bridge built?", "--max-new-tokens", 2)
    assert len(short.out) < len(plain.out)


def test_run_is_a_filter(artifacts: Path) -> None:
    command = [sys.executable, "-m", "edge.cli", "run", str(artifacts / "onnx-int8")]
    text = "who uh who made it?\n\nwhen was it built?\n"
    ended = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    lines = ended.stdout.split("\n")
    assert len(lines) == 4
    assert lines[0]
    assert lines[1] == ""
    assert lines[2]
    broken = subprocess.run(command, input=b"fine\n\xff\n", capture_output=True)
    assert broken.returncode == 2
    assert broken.stderr.decode().startswith("edge: standard input:2: not UTF-8")


def test_run_over_a_file_keeps_columns_and_order(
    edge: Edge, artifacts: Path, dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    source = dataset / "dev.jsonl"
    artifact = artifacts / "onnx-float32"
    ended = edge("run", artifact, "--input", source, "--output", output)
    assert ended.status == 0, ended.err
    asked = [json.loads(line) for line in source.read_text().splitlines()]
    answered = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in answered] == [row["id"] for row in asked]
    assert all(row["output"] for row in answered)
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(row["input"] for row in asked[:3]) + "\n")
    plain = edge("run", artifact, "--input", lines)
    assert plain.out.splitlines() == [row["output"] for row in answered[:3]]


def test_a_broken_row_leaves_no_half_written_output(
    assert_refused: Refused, artifacts: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "x"}\n' * 40 + '{"input": \n')
    output = tmp_path / "answers.jsonl"
    output.write_text("from yesterday")
    call = ("run", artifacts / "onnx-int8", "--input", rows, "--output", output, "--force")
    line = assert_refused(*call)
    assert "rows.jsonl:41: not JSON" in line
    assert output.read_text() == "from yesterday"


def test_run_refuses_invalid_options(
    assert_refused: Refused, artifacts: Path, tmp_path: Path
) -> None:
    artifact = artifacts / "onnx-int8"
    assert "not both" in assert_refused("run", artifact, "x", "--input", "y")
    assert "--output needs" in assert_refused("run", artifact, "x", "--output", "y")
    assert "no such file" in assert_refused("run", artifact, "--input", tmp_path / "none.txt")
    assert "name=value" in assert_refused("run", artifact, "x", "--field", "task")
    assert "temperature" in assert_refused("run", artifact, "x", "--temperature", 0)
    assert "do not support beam search" in assert_refused(
        "run", artifacts / "gguf-q8_0", "x", "--num-beams", 3
    )
    assert "this artifact takes" in assert_refused("run", artifact, "word " * 700)
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    assert "no rows" in assert_refused("run", artifact, "--input", empty)


def test_info_shows_the_manifest(edge: Edge, artifacts: Path, assert_refused: Refused) -> None:
    ended = edge("info", artifacts / "gguf-q8_0")
    for word in ("gguf, q8_0", "model.gguf", "encoder + ", "parity", "sha256"):
        assert word in ended.out
    assert "norms folded" in ended.out
    assert "none: the source's weights" in edge("info", artifacts / "gguf-f32").out
    values = json.loads(edge("info", artifacts / "gguf-q8_0", "--json").out)
    assert values["format"] == "gguf"
    assert "not an artifact" in assert_refused("info", artifacts.parent / "none")


def test_verify_reports_files_and_parity(edge: Edge, artifacts: Path, trained: Path) -> None:
    ended = edge("verify", artifacts / "onnx-int8")
    assert ended.status == 0
    assert "sha256 match" in ended.out
    again = edge("verify", artifacts / "onnx-float32", "--source", trained)
    assert again.status == 0, again.err
    assert "15 of 15 greedy answers identical" in again.out


def test_verify_says_that_an_artifact_chose_a_loose_tolerance(
    edge: Edge, artifacts: Path, trained: Path, assert_refused: Refused, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(artifacts / "onnx-float32", tmp_path / "copy"))
    path = folder / "edge.json"
    values = json.loads(path.read_text())

    def write(tolerance: object) -> None:
        values["parity"]["tolerance"] = tolerance
        path.write_text(json.dumps(values))

    own = values["parity"]["tolerance"]
    call = ("verify", folder, "--source", trained)
    for malformed in (
        {"foo": 1},
        5,
        {**own, "mean_error": "1"},
        {**own, "mean_error": math.nan},
        {**own, "max_error": -1},
        {**own, "greedy": None},
        {**own, "more": 1},
    ):
        write(malformed)
        assert "parity.tolerance must have greedy" in assert_refused(*call)
    write({"greedy": True, "max_error": None, "mean_error": 1e9})
    shown = edge(*call)
    assert shown.status == 0, shown.err
    assert "tolerance  identical greedy answers, mean error 1e+09: the manifest allows" in shown.out
    assert "than edge export does (identical greedy answers, max error 0.001, mean" in shown.out
    write({"greedy": True, "max_error": 1e-30, "mean_error": 1e-30})
    assert "differs from its source" in assert_refused(*call, status=1)
    write(None)
    assert "tolerance" not in edge(*call).out


def test_verify_finds_an_altered_file_and_another_source(
    assert_refused: Refused, artifacts: Path, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(artifacts / "onnx-int8", tmp_path / "copy"))
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("the", "eht", 1))
    assert "tokenizer.json is altered" in assert_refused("verify", folder)
    line = assert_refused("verify", artifacts / "onnx-int8", "--source", random_model())
    assert "the weights differ from those it was made from" in line


def test_export_refuses_with_one_line(
    assert_refused: Refused, trained: Path, artifacts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = assert_refused("export", trained, "--format", "onx", "--output", out)
    assert "Did you mean 'onnx'" in line
    line = assert_refused(
        "export", trained, "--format", "onnx", "--quantize", "int7", "--output", out
    )
    assert "unknown onnx quantization 'int7'" in line
    line = assert_refused("export", tmp_path / "none", "--format", "onnx", "--output", out)
    assert "no such model folder" in line
    line = assert_refused("export", trained, "--format", "onnx", "--output", artifacts)
    assert "--force" in line
    line = assert_refused(
        *("export", trained, "--format", "onnx", "--output", out, "--mean-error", "1e-12"), status=1
    )
    assert "differs from its source" in line
    assert not out.exists()


def test_export_writes_one_artifact(edge: Edge, trained: Path, tmp_path: Path) -> None:
    ended = edge(
        *("export", trained, "--format", "onnx", "--output", tmp_path / "out"),
        *("--prefix", "clean: ", "--num-beams", 2),
    )
    assert ended.status == 0, ended.err
    assert "/15 identical" in ended.out
    values = json.loads(edge("info", tmp_path / "out", "--json").out)
    assert values["prompt_template"] == "clean: {input}"
    assert values["generation"]["num_beams"] == 2


def test_bench_refuses_with_one_line(
    assert_refused: Refused, artifacts: Path, tmp_path: Path
) -> None:
    artifact = artifacts / "onnx-int8"
    assert "no such file" in assert_refused("bench", artifact, "--data", tmp_path / "none.jsonl")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "x", "reply": "y"}\n')
    line = assert_refused("bench", artifact, "--data", rows)
    assert "'query', 'reply'" in line
    rows.write_text("")
    assert "no rows" in assert_refused("bench", artifact, "--data", rows)
    rows.write_text('{"input": "x", "target": "y"}\n')
    assert "at least 30" in assert_refused("bench", artifact, "--data", rows, "--runs", 3)
    assert "Missing argument 'ARTIFACT...'" in assert_refused("bench", "--data", rows)
    assert "Missing option '--data'" in assert_refused("bench", artifact)


def test_a_missing_extra_is_named(
    assert_refused: Refused, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "edge.runtime.engines.ctranslate2.engine", raising=False)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    line = assert_refused("run", artifacts / "ctranslate2-int8", "x", status=1)
    assert install_command("ctranslate2") in line


def test_debug_shows_the_traceback() -> None:
    command = [sys.executable, "-m", "edge.cli", "info", "/no/such/folder", "--debug"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" in ended.stderr
    assert "ArtifactError" in ended.stderr


def test_a_closed_pipe_is_not_an_error(artifacts: Path) -> None:
    command = (
        f"yes 'who made it' | head -200 | {sys.executable} -m edge.cli run"
        f" {artifacts / 'onnx-int8'} | head -1"
    )
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True
    )
    assert ended.stderr == ""
    assert len(ended.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("redirection", "said", "status"),
    [
        (">/dev/full", "edge: standard output can't be written: no space left on device\n", 1),
        (">&-", "edge: standard output can't be written: it is closed\n", 1),
    ],
)
def test_a_standard_output_that_cant_be_written(
    artifacts: Path, redirection: str, said: str, status: int
) -> None:
    command = f"{sys.executable} -m edge.cli info {artifacts / 'onnx-int8'} {redirection}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (ended.stderr, ended.returncode) == (said, status)
