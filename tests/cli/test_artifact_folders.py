"""`info`, `verify` and `serve` take a folder of artifacts, as `bench` and `tune` do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Edge = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def two(artifacts: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "two"
    for name in ("gguf-f32", "onnx-int8"):
        shutil.copytree(artifacts / name, folder / name)
    return folder


def test_info_shows_each(edge: Edge, two: Path) -> None:
    shown = edge("info", two).out
    assert shown.index(f"{two}/gguf-f32\n") < shown.index(f"{two}/onnx-int8\n")
    formats = [one["format"] for one in json.loads(edge("info", two, "--json").out)]
    assert formats == ["gguf", "onnx"]
    alone = json.loads(edge("info", two / "onnx-int8", "--json").out)
    assert alone["format"] == "onnx"


def test_verify_checks_each_and_names_those_that_fail(
    edge: Edge, assert_refused: Refused, two: Path
) -> None:
    ended = edge("verify", two)
    assert ended.status == 0, ended.err
    assert ended.out.count("sha256 match") == ended.out.count("loads and answers") == 2
    card = two / "gguf-f32" / "README.md"
    card.write_bytes(card.read_bytes()[::-1])
    ended = edge("verify", two)
    assert ended.status == 2
    assert "failed     " in ended.out
    assert ended.out.count("sha256 match") == 1
    assert ended.err == f"edge: {two}: 1 of 2 artifacts failed: gguf-f32\n"


def test_a_folder_without_artifacts_is_refused(assert_refused: Refused, tmp_path: Path) -> None:
    for command in ("info", "verify", "serve"):
        assert "not an artifact" in assert_refused(command, tmp_path)


def test_serve_names_each_by_its_folder(two: Path) -> None:
    from edge.cli.artifact_names import name_artifacts

    both = {"gguf-f32": two / "gguf-f32", "onnx-int8": two / "onnx-int8"}
    assert name_artifacts((str(two),)) == both
    one = {"onnx-int8": two / "onnx-int8"}
    assert name_artifacts((str(two / "onnx-int8"),)) == one
