"""`edge train --draft`: a draft head after the training, or a model without one and one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.export.draft_head import DRAFT_HEAD_NAME
from edge.export.options import resolve_draft_head
from edge.export.source import SourceModel
from edge.runtime.rows import read_rows

Edge = Callable[..., Any]
SCRATCH = (
    *("--from-scratch", "tiny", "--vocab-size", 300, "--epochs", 1, "--threads", 1),
    *("--max-target-length", 32, "--batch-size", 16),
)


@pytest.fixture
def few(dataset: Path, tmp_path: Path) -> Path:
    """A file of 60 rows: enough to train with, and too few for a draft head."""
    lines = (dataset / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "few.jsonl").write_text("".join(lines[:60]), encoding="utf-8")
    return tmp_path / "few.jsonl"


def test_a_new_model_gets_a_head(edge: Edge, dataset: Path, tmp_path: Path) -> None:
    lines = (dataset / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    data, output = tmp_path / "rows.jsonl", tmp_path / "out"
    data.write_text("".join(lines[:240]), encoding="utf-8")
    ended = edge(
        "train", data, *SCRATCH, "--dev-ratio", 0.2, "--output", output, "--draft", "--resume"
    )
    assert ended.status == 0, ended
    head = resolve_draft_head(SourceModel.open(output))
    assert head is not None
    rows = json.loads((output / "training.json").read_text())["data"]["train_rows"]
    assert rows < 220
    assert head.record["rows"] + head.record["held_out"] == rows
    assert head.record["data"] == "rows.jsonl"
    assert f"draft head: {output / DRAFT_HEAD_NAME} (fitted to" in ended.out
    assert ended.out.count("next:") == 1
    assert f"edge export {output} --format onnx --prompt-lookup-num-tokens 8" in ended.out
    assert ended.out.index("model:") < ended.out.index("draft head:") < ended.out.index("next:")
    assert not output.with_name("out.run").exists()


def test_a_merged_adapter_gets_a_head(
    edge: Edge, trained: Path, dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    ended = edge(
        "train", dataset, "--model", trained, "--method", "lora", "--time-limit", "3s",
        "--max-source-length", 64, "--threads", 1, "--output", output, "--draft",
    )  # fmt: skip
    assert ended.status == 0, ended
    assert (output / "adapter").is_dir()
    head = resolve_draft_head(SourceModel.open(output))
    assert head is not None
    train = read_rows(dataset / "train.jsonl")
    assert head.record["rows"] + head.record["held_out"] == len(train)
    # The trained model copies what it keeps, which a head learns.
    assert head.record["keep_accuracy"] > 0.8


def test_too_few_rows_are_refused_before_training(
    edge: Edge, assert_refused: Callable[..., str], few: Path, tmp_path: Path
) -> None:
    run = (few, *SCRATCH, "--dev-ratio", 0.2, "--draft")
    line = assert_refused("train", *run, "--output", tmp_path / "out")
    assert "--draft needs 100 training rows" in line
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.run").exists()
    checked = edge("check", *run)
    assert checked.status == 2
    assert "--draft needs 100 training rows" in " ".join(checked.out.split())
    assert edge("check", *run[:-1]).status == 0


def test_a_fit_that_fails_leaves_the_model(edge: Edge, few: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    ended = edge(
        "train", few, *SCRATCH, "--dev-ratio", 0.2, "--output", output, "--draft", "--no-check"
    )
    assert ended.status == 1
    line = ended.err.strip().splitlines()[-1]
    assert line.startswith(f"edge: {output} is complete, but has no draft head: {few}: ")
    assert "at least 100" in line
    assert f"edge draft fit {output} --data {few}" in line
    assert "Traceback" not in ended.err
    assert "model:" in ended.out
    SourceModel.open(output)
    assert not (output / DRAFT_HEAD_NAME).exists()
    assert not output.with_name("out.run").exists()
