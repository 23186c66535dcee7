"""Draft heads that are damaged, forged or of another model: one sentence, and bounded memory."""

from __future__ import annotations

import dataclasses
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge.export.draft_head import DRAFT_HEAD_NAME, DraftHead, draft_head_line, read_draft_head
from edge.export.options import resolve_draft_head
from edge.export.source import SourceModel
from edge.runtime.errors import ModelError
from edge.train.config import TrainConfig
from edge.train.model.loading import load_pretrained
from edge.train.preflight import preflight

Head = dict[str, np.ndarray]


def refused(folder: Path, match: str = "Run edge draft fit again with --force") -> None:
    with pytest.raises(ModelError, match=match) as caught:
        resolve_draft_head(SourceModel.open(folder))
    assert DRAFT_HEAD_NAME in str(caught.value)
    assert "\n" not in str(caught.value)


def rewritten(folder: Path, change: Callable[[Head, dict[str, Any]], None]) -> None:
    """Change the arrays and the description of a head in place, past `DraftHead`'s own types."""
    path = folder / DRAFT_HEAD_NAME
    head = read_draft_head(path)
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    about: dict[str, Any] = {
        "phrases": head.phrases,
        "weights_sha256": head.weights_sha256,
        "tokenizer_sha256": head.tokenizer_sha256,
        "record": head.record,
    }
    change(arrays, about)
    save_file(arrays, path, {"draft_head": json.dumps(about)})


def test_a_sound_head_is_read(copy: Path) -> None:
    rewritten(copy, lambda arrays, about: None)
    assert resolve_draft_head(SourceModel.open(copy)) is not None


def test_a_head_of_another_model_is_refused(copy: Path) -> None:
    head = read_draft_head(copy / DRAFT_HEAD_NAME)
    for field, what in (("weights_sha256", "weights"), ("tokenizer_sha256", "tokenizer")):
        dataclasses.replace(head, **{field: "0" * 64}).save(copy / DRAFT_HEAD_NAME)
        refused(copy, f"another model .the {what} differ.. Run edge draft fit again with --force")


@pytest.mark.parametrize(
    "damage",
    [
        lambda head: dataclasses.replace(head, phrases=(*head.phrases, (5,))),
        lambda head: dataclasses.replace(head, phrases=((1 << 30,), *head.phrases[1:])),
        lambda head: dataclasses.replace(head, phrases=((-1,), *head.phrases[1:])),
        lambda head: dataclasses.replace(head, phrases=((True,), *head.phrases[1:])),
        lambda head: dataclasses.replace(head, phrases=((5.0,), *head.phrases[1:])),
        lambda head: dataclasses.replace(head, phrases=(("a",), *head.phrases[1:])),
        lambda head: dataclasses.replace(head, phrases=((), *head.phrases[1:])),
        lambda head: dataclasses.replace(head, phrases=((5,) * 7, *head.phrases[1:])),
        lambda head: dataclasses.replace(head, first=head.first[:, :3]),
        lambda head: dataclasses.replace(head, output=np.full_like(head.output, np.nan)),
        lambda head: dataclasses.replace(head, second=np.full_like(head.second, np.inf)),
        lambda head: dataclasses.replace(head, second=head.second.astype(np.float16)),
        lambda head: dataclasses.replace(head, first=head.first.astype(np.float64)),
        lambda head: dataclasses.replace(head, first_bias=head.first_bias.astype(np.int32)),
        lambda head: dataclasses.replace(head, first_bias=head.first_bias[0]),
        lambda head: dataclasses.replace(head, record=["rows"]),
        lambda head: dataclasses.replace(head, record={"rows": float("nan")}),
        lambda head: dataclasses.replace(head, record={"rows": 10**400}),
        lambda head: dataclasses.replace(head, record={"data": {"path": "x"}}),
        lambda head: dataclasses.replace(head, record={"data": "\ud800"}),
        lambda head: dataclasses.replace(head, record={"data": "x" * 10_000}),
        lambda head: dataclasses.replace(head, record=dict.fromkeys(map(str, range(1000)), 0)),
    ],
)
def test_damaged_heads_are_refused(copy: Path, damage: Callable[[DraftHead], DraftHead]) -> None:
    damage(read_draft_head(copy / DRAFT_HEAD_NAME)).save(copy / DRAFT_HEAD_NAME)
    refused(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, about: arrays.pop("second"),
        lambda arrays, about: arrays.update(third=np.zeros(3, np.float32)),
        lambda arrays, about: about.pop("record"),
        lambda arrays, about: about.update(more=1),
        lambda arrays, about: about.update(first=1),
        lambda arrays, about: about.update(phrases="abc"),
        lambda arrays, about: about.update(phrases=None),
        lambda arrays, about: about.update(phrases=7),
        lambda arrays, about: about.update(phrases=[[5]] * 256),
    ],
)
def test_other_contents_are_refused(
    copy: Path, change: Callable[[Head, dict[str, Any]], None]
) -> None:
    rewritten(copy, change)
    refused(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000, '{"a":' * 50_000])
def test_a_description_that_is_no_json_object(copy: Path, text: str) -> None:
    arrays = load_file(copy / DRAFT_HEAD_NAME)
    for metadata in ({"draft_head": text}, {"other": "x"}, None):
        save_file(arrays, copy / DRAFT_HEAD_NAME, metadata)
        refused(copy)


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"text" * 100])
def test_other_files_are_refused(copy: Path, content: bytes) -> None:
    (copy / DRAFT_HEAD_NAME).write_bytes(content)
    refused(copy, "draft_head.safetensors")


def test_what_is_no_file_is_refused(copy: Path) -> None:
    path = copy / DRAFT_HEAD_NAME
    path.unlink()
    assert resolve_draft_head(SourceModel.open(copy)) is None
    path.symlink_to("nowhere")
    refused(copy)
    path.unlink()
    os.mkfifo(path)
    refused(copy)
    path.unlink()
    path.mkdir()
    refused(copy)


def huge_file(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(3 << 30)


def huge_header(path: Path) -> None:
    header = json.dumps(
        {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(50_000)}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def huge_tensor(path: Path) -> None:
    arrays = load_file(path)
    save_file({**arrays, "first": np.zeros((1, 100 << 20, 1), np.uint8)}, path)


@pytest.mark.parametrize("enlarge", [huge_file, huge_header, huge_tensor])
def test_a_huge_file_takes_no_memory(copy: Path, enlarge: Callable[[Path], None]) -> None:
    path = copy / DRAFT_HEAD_NAME
    enlarge(path)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=DRAFT_HEAD_NAME):
            read_draft_head(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_lines_of_forged_records() -> None:
    record: dict[str, Any] = {"rows": 10**300, "data": ["x"], "keep_accuracy": None}
    assert "fitted to 1" in draft_head_line(record)
    assert draft_head_line({"rows": float("nan"), "keep_accuracy": float("inf")})
    assert draft_head_line({}) == "included"


def test_training_looks_at_the_model_alone(copy: Path, dataset: Path, tmp_path: Path) -> None:
    head = read_draft_head(copy / DRAFT_HEAD_NAME)
    dataclasses.replace(head, output=head.output * np.nan).save(copy / DRAFT_HEAD_NAME)
    checks = preflight(TrainConfig(dataset, tmp_path / "out", model=str(copy)))
    assert [check.status for check in checks if check.name == "model"] == ["ok"]
    load_pretrained(str(copy))
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        load_pretrained(str(copy))
