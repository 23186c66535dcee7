"""Outputs that --force does not replace: inputs, and what edge did not write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.runtime.errors import OutputExistsError
from edge.runtime.platform.destination import check_destination
from edge.runtime.platform.json_file import read_json
from samples import save_letter_model


def test_an_output_that_holds_an_input(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").touch()
    (tmp_path / "config.json").touch()
    (tmp_path / "link").symlink_to(model)
    for output in (model, tmp_path, tmp_path / "link", model / ".." / "model"):
        with pytest.raises(OutputExistsError, match="this command reads"):
            check_destination(output, force=True, inputs=["owner/name", model])
    check_destination(model / "onnx", force=True, inputs=[model])  # replaces nothing
    check_destination(model, force=True, inputs=["owner/name"])


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(OutputExistsError, match="was not written by edge"):
        check_destination(tmp_path, force=True)


def test_commands_keep_what_they_read(assert_refused: Callable[..., str], tmp_path: Path) -> None:
    model = tmp_path / "model"
    save_letter_model(model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    rows = tmp_path / "data" / "train.jsonl"
    rows.parent.mkdir()
    rows.write_text("".join(f'{{"input": "{n}", "target": "ab"}}\n' for n in range(99)))
    data = rows.parent
    for command in (
        ("export", model, "-f", "onnx", "-o", model, "--force"),
        ("export", model, "-f", "onnx", "--calibrate", rows, "-o", data, "--force"),
        ("merge", model, data, "-o", model, "--force"),
        ("merge", "google/t5", model, "-o", model, "--force"),
        ("train", data, "-m", model, "-o", model, "--force", "--no-check"),
        ("train", data, "-m", model, "-o", data, "--force", "--no-check"),
        ("data", "split", rows, "-o", data, "--force"),
    ):
        assert "can't be replaced: this command reads" in assert_refused(*command)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert [path.name for path in data.iterdir()] == ["train.jsonl"]


def test_a_pipe_without_a_writer_is_an_empty_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not JSON"):
        read_json(tmp_path / "pipe", 1000)
