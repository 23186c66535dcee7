"""Rows of JSON, and how answers to them are counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.bench.json_answers.rows import command_as_json, command_as_words, write_command_rows
from edge.bench.json_answers.validity import measure_artifact
from edge.export import export
from edge.runtime.errors import DataError
from edge.runtime.rows import read_rows

COMMANDS = {
    "train": ["ls -l path/to/file", "ls", "git add .", "git add .", "echo 'a b'", "x " * 90 + "y"],
    "dev": ["ls", "df -h"],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, commands in COMMANDS.items():
        rows = [{"input": "what", "target": command} for command in commands]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_a_command_becomes_an_object() -> None:
    found = command_as_json("grep -v word path/to/file")
    assert found is not None
    assert json.loads(found) == {"cmd": "grep", "args": ["-v", "word", "path/to/file"]}
    assert found.startswith('{\n\t"cmd": "grep",\n\t"args": [\n\t\t"-v",\n')
    for refused in ("", "echo 'a'", "echo $HOME", "a  b", "ls | wc", "[[ -f x ]]"):
        assert command_as_json(refused) is None
    assert command_as_json("a b c", max_args=1) is None


def test_a_base_learns_the_words(data: Path, tmp_path: Path) -> None:
    assert command_as_words("ls -l path/to/file") == '"ls" "-l" "path/to/file"'
    assert command_as_words("echo 'a'") is None
    write_command_rows(data, tmp_path / "rows", max_characters=120, write=command_as_words)
    [row, _] = read_rows(tmp_path / "rows" / "dev.jsonl")
    assert (row.input, row.target) == ("ls", '"ls"')


def test_no_command_is_in_both_splits_or_twice(data: Path, tmp_path: Path) -> None:
    counts = write_command_rows(data, tmp_path / "rows", max_characters=120)
    assert counts == {"train": 2, "dev": 2}
    found = {split: read_rows(tmp_path / "rows" / f"{split}.jsonl") for split in counts}
    assert [row.input for row in found["train"]] == ["ls -l path/to/file", "git add ."]
    assert [row.input for row in found["dev"]] == COMMANDS["dev"]
    few = write_command_rows(data, tmp_path / "few", max_characters=120, limit=1, max_args=2)
    assert few == {"train": 1, "dev": 1}


def test_unusable_data_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="short enough"):
        write_command_rows(data, tmp_path / "rows", max_characters=10)
    (data / "train.jsonl").unlink()
    with pytest.raises(DataError, match="no train file"):
        write_command_rows(data, tmp_path / "rows", max_characters=120)


def test_answers_that_are_not_json_are_counted(
    random_model: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    [exported] = export(random_model(), tmp_path / "artifact", "onnx", "none")
    write_command_rows(data, tmp_path / "rows", max_characters=120)
    rows = read_rows(tmp_path / "rows" / "dev.jsonl")
    found = measure_artifact(exported.folder, rows, max_new_tokens=8, threads=1)
    assert found.artifact.startswith("onnx-")
    assert found.rows == 2
    assert found.valid == 2 - len(found.invalid)
    for text, answer in found.invalid:
        assert text in COMMANDS["dev"]
        with pytest.raises(ValueError, match=r"line \d+ column"):
            json.loads(answer)
    assert found.equal == found.verbatim == 0
