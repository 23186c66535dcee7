"""`edge draft fit` as a user meets it: what it prints, and one line for each mistake."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.export.draft_head import DRAFT_HEAD_NAME

pytestmark = pytest.mark.usefixtures("one_torch_thread")
Refused = Callable[..., str]
_DROP_FROM_BOUNDING_SET, _CAP_DAC_OVERRIDE = 24, 1  # prctl: permissions bind root, too


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "model")
    return tmp_path / "model"


def test_it_fits_and_names_the_next_step(
    edge: Callable[..., Any], model: Path, dataset: Path
) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    fit = ("draft", "fit", model, "--data", dataset, "--limit", 120)
    done = edge(*fit)
    assert done.status == 0, done.err
    assert f"draft head: {model / DRAFT_HEAD_NAME} (fitted to 114 rows of train.jsonl" in done.out
    assert "on 6 held-out rows" in done.out
    assert f"edge export {model} --format onnx --prompt-lookup-num-tokens 8" in done.out
    after = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    head = after.pop(DRAFT_HEAD_NAME)
    assert after == before
    assert not [path for path in model.iterdir() if path.name.endswith(".partial")]
    refused = edge(*fit)
    assert refused.status == 2
    assert f"{model / DRAFT_HEAD_NAME} already exists; use --force" in refused.err
    assert edge(*fit, "--force", "--threads", 1).status == 0
    assert (model / DRAFT_HEAD_NAME).read_bytes() == head


def test_mistakes_in_the_model(
    assert_refused: Refused,
    model: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(folder: object) -> str:
        return assert_refused("draft", "fit", folder, "--data", dataset)

    assert "hf download google/flan-t5-small" in refused("google/flan-t5-small")
    assert "no such folder" in refused("missing")
    assert "no such model folder" in refused(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "config.json" in refused("empty")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "google/flan-t5-small"})
    )
    assert "Merge it first: edge merge google/flan-t5-small" in refused("adapter")
    (model / "model.safetensors").rename(model / DRAFT_HEAD_NAME)
    assert "--force" in refused("model")
    (model / DRAFT_HEAD_NAME).unlink()
    assert "model.safetensors is missing" in refused("model")
    assert not (model / DRAFT_HEAD_NAME).exists()


def test_mistakes_in_the_rows(
    assert_refused: Refused, model: Path, dataset: Path, tmp_path: Path
) -> None:
    fit = ("draft", "fit", model, "--data")
    rows = tmp_path / "rows.jsonl"
    assert str(rows) in assert_refused(*fit, rows)
    rows.write_text('{"text": "what is this"}\n{"text": "and that"}\n')
    line = assert_refused(*fit, rows, "--input-column", "question")
    assert "no column 'question'; this row has: 'text' (choose one with --input-column)" in line
    rows.write_text("")
    assert "no rows" in assert_refused(*fit, rows)
    line = assert_refused(*fit, dataset, "--limit", 5)
    assert "5 usable rows of 5" in line
    assert "at least 100" in line
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(dataset / "dev.jsonl", folder)
    assert "train.jsonl" in assert_refused(*fit, folder)
    assert "needs the field 'topic'" in assert_refused(*fit, dataset, "--prefix", "{topic} {input}")
    assert not (model / DRAFT_HEAD_NAME).exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_a_read_only_folder_is_refused_before_the_work(model: Path, dataset: Path) -> None:
    prctl = ctypes.CDLL(None).prctl
    model.chmod(0o500)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "edge.cli", "draft", "fit", model, "--data", dataset],
            capture_output=True,
            text=True,
            preexec_fn=lambda: prctl(_DROP_FROM_BOUNDING_SET, _CAP_DAC_OVERRIDE, 0, 0, 0),
            check=False,
        )
    finally:
        model.chmod(0o700)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"edge: {model / DRAFT_HEAD_NAME} can't be written: {model}: Perm")
