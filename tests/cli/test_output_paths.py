"""No command destroys what it reads, an artifact, a model, or one of its own outputs."""

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
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"input": "the cat", "target": "a cat"}) + "\n")
    return path


@pytest.fixture
def artifact(artifacts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifacts / "onnx-int8", tmp_path / "artifact"))


def test_a_destination_that_is_an_input_is_refused(
    assert_refused: Refused, artifact: Path, rows: Path, tmp_path: Path
) -> None:
    before = rows.read_bytes()
    link = tmp_path / "link.jsonl"
    link.symlink_to(rows)
    for call in (
        ("bench", artifact, "--data", rows, "--json", rows),
        ("bench", artifact, "--data", rows, "--json", link),
        ("bench", artifact, "--data", rows, "--markdown", f"{tmp_path}/artifact/../rows.jsonl"),
        ("bench-speculation", artifact, "--data", rows, "--json", rows),
        ("data", "lengths", rows, "-m", "t5", "--json", rows),
        ("data", "lengths", rows, "-m", "t5", "--histogram", rows),
        ("data", "augment", rows, "--noise", "--force", "-o", rows),
        ("run", artifact, "--input", rows, "-o", rows),
        ("report", rows, "--html", rows),
    ):
        line = assert_refused(*call)
        assert "would replace an input of this command" in line, line
        assert str(rows) in line
    assert rows.read_bytes() == before


def test_a_split_of_a_folder_that_is_read_is_not_replaced(
    assert_refused: Refused, artifact: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "validation.json").write_text('[{"input": "x", "target": "y"}]')
    line = assert_refused("bench", artifact, "--data", folder, "--json", folder / "validation.json")
    assert "would replace an input of this command" in line
    assert json.loads((folder / "validation.json").read_text())[0]["input"] == "x"


def test_nothing_is_written_into_an_artifact_or_a_model(
    assert_refused: Refused, artifact: Path, trained: Path, rows: Path, tmp_path: Path
) -> None:
    names = {path.name: path.read_bytes() for path in artifact.iterdir()}
    model = Path(shutil.copytree(trained, tmp_path / "model"))
    for call in (
        ("bench", artifact, "--data", rows, "--json", artifact / "edge.json"),
        ("bench", artifact, "--data", rows, "--html", artifact / "new.html"),
        ("bench", artifact, "--data", rows, "--plots", artifact),
        ("run", artifact, "--input", rows, "-o", artifact / "edge.json"),
        ("run", artifact, "--input", rows, "-o", artifact / "answers" / "a.jsonl"),
        ("info", artifact, "--json", artifact / "tokenizer.json"),
    ):
        assert "is inside the artifact" in assert_refused(*call), call
    line = assert_refused("data", "lengths", rows, "-m", model, "--json", model / "config.json")
    assert "is inside the model folder" in line
    assert {path.name: path.read_bytes() for path in artifact.iterdir()} == names


def test_two_outputs_need_two_files(
    assert_refused: Refused, artifact: Path, rows: Path, tmp_path: Path
) -> None:
    page = tmp_path / "z.html"
    for call in (
        ("report", rows, "--html", page, "--markdown", page),
        ("bench", artifact, "--data", rows, "--json", page, "--html", f"{tmp_path}/./z.html"),
    ):
        assert "name the same file" in assert_refused(*call), call
    assert not page.exists()


def test_a_destination_beside_the_inputs_is_fine(edge: Edge, artifact: Path) -> None:
    manifest = artifact.parent / "manifest.json"
    assert edge("info", artifact, "--json", manifest).status == 0
    assert edge("info", artifact, "--json", manifest).status == 0  # its own output, again
    assert json.loads(manifest.read_text())["format"] == "onnx"
