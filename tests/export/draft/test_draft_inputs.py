"""What a draft head is fitted to: rows without targets, the prompt, and training rows alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.export.api import export
from edge.export.draft.alignment import Edit
from edge.export.draft.examples import Example
from edge.export.draft.fit import DraftInputs, fit_draft_head
from edge.export.draft.network import fit_network, measure
from edge.export.draft.training import enough_rows, training_inputs
from edge.export.draft_head import DRAFT_HEAD_NAME, read_draft_head
from edge.export.source import SourceModel
from edge.runtime.errors import DataError, ModelError, OutputExistsError
from edge.runtime.model import load
from edge.runtime.rows import Columns, read_rows
from edge.train.config import TrainConfig
from edge.train.preflight import preflight
from samples import TEXTS

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "model")
    return tmp_path / "model"


def write(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def questions(dataset: Path) -> list[str]:
    return [row.input for row in read_rows(dataset / "train.jsonl")]


def test_rows_need_no_targets(model: Path, questions: list[str], tmp_path: Path) -> None:
    data = write(tmp_path / "asked.jsonl", ({"asked": text} for text in questions[:140]))
    torch.set_num_threads(2)
    fitted = fit_draft_head(model, data, columns=Columns("asked"), limit=120, threads=1)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert fitted.path == model / DRAFT_HEAD_NAME
    record = read_draft_head(fitted.path).record
    assert (record["data"], record["rows"], record["held_out"]) == ("asked.jsonl", 114, 6)
    assert 0.5 < record["keep_accuracy"] <= 1
    # The same rows give the same head, and a prompt another one.
    first = fitted.path.read_bytes()
    texts = DraftInputs(questions[:120], data)
    fit_draft_head(model, texts, force=True)
    assert fitted.path.read_bytes() == first
    fit_draft_head(model, data, columns=Columns("asked"), limit=120, prompt="clean: ", force=True)
    prompted = fitted.path.read_bytes()
    assert prompted != first
    texts = DraftInputs([f"clean: {text}" for text in questions[:120]], data)
    fit_draft_head(model, texts, force=True)
    assert fitted.path.read_bytes() == prompted


def test_answers_that_insert_nothing_need_no_phrases(drafted_model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    width = SourceModel.open(drafted_model).architecture.d_model
    examples = []
    for _ in range(64):
        encoded = rng.normal(size=(8, width)).astype(np.float16)
        kept = [bool(first > 0) for first in encoded[:, 0]]
        examples.append(Example([5] * 8, Edit(kept, [()] * 8), encoded))
    network = fit_network(examples, [], width, lambda *_: None)
    assert measure(network, examples, [])["keep_accuracy"] > 0.5
    # Such a head is exported, and its drafts change no answer.
    folder = tmp_path / "model"
    shutil.copytree(drafted_model, folder)
    head = read_draft_head(folder / DRAFT_HEAD_NAME)
    bare = {"phrases": (), "output": head.output[:2], "output_bias": head.output_bias[:2]}
    dataclasses.replace(head, **bare).save(folder / DRAFT_HEAD_NAME)
    [made] = export(folder, tmp_path / "made", "onnx", "float32")
    with load(made.folder) as model:
        for text in TEXTS:
            drafted = model.generate(text, prompt_lookup_num_tokens=8)
            assert drafted.token_ids == model.generate(text).token_ids


def test_too_few_rows_and_too_long_ones(model: Path, questions: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="99 usable rows of 99 .*at least 100"):
        fit_draft_head(model, DraftInputs(questions[:99], tmp_path / "rows.jsonl"))
    long = [*questions[:99], *["what is " * 400] * 50]
    with pytest.raises(DataError, match=r"99 usable rows of 149 \(at most 64 tokens\)"):
        fit_draft_head(model, DraftInputs(long, tmp_path / "rows.jsonl"))
    assert not (model / DRAFT_HEAD_NAME).exists()


def test_models_without_a_folder_of_their_own(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, command in (
        ("google/flan-t5-small", "hf download google/flan-t5-small --local-dir FOLDER"),
        ("me/tiny@v1", "hf download me/tiny --revision v1 --local-dir FOLDER"),
        ("my-modle", "no such folder"),
    ):
        with pytest.raises(ModelError, match=command):
            fit_draft_head(name, Path("rows.jsonl"))
    snapshot = tmp_path / "hub" / "models--me--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(model, snapshot)
    with pytest.raises(ModelError, match="hf download me/tiny --revision 0000"):
        fit_draft_head(snapshot, Path("rows.jsonl"))
    (model / DRAFT_HEAD_NAME).mkdir()
    with pytest.raises(OutputExistsError, match="is a folder"):
        fit_draft_head(model, Path("rows.jsonl"), force=True)


def test_encoder_outputs_beyond_float16(model: Path, questions: list[str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    weights["encoder.final_layer_norm.weight"] *= 1e6
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="outputs are too large"):
        fit_draft_head(model, DraftInputs(questions[:120], tmp_path / "rows.jsonl"))
    assert not (model / DRAFT_HEAD_NAME).exists()


def test_rows_held_out_from_training_are_held_out_from_the_fit(
    questions: list[str], tmp_path: Path
) -> None:
    rows = [{"input": text, "target": "x"} for text in questions[:200]]
    data = write(tmp_path / "rows.jsonl", rows)
    config = TrainConfig(data, "o", from_scratch="tiny", prefix="clean: ", dev_ratio=0.3)
    inputs = training_inputs(config)
    assert inputs.path == data
    assert 100 < len(inputs.texts) < 180
    assert all(text.startswith("clean: ") for text in inputs.texts)
    folder = tmp_path / "splits"
    folder.mkdir()
    write(folder / "train.jsonl", rows[:150])
    write(folder / "dev.jsonl", rows[150:])
    inputs = training_inputs(TrainConfig(folder, "o", from_scratch="tiny"))
    assert inputs == DraftInputs(questions[:150], folder / "train.jsonl")


@pytest.mark.parametrize(("rows", "status"), [(200, "ok"), (99, "failed")])
def test_the_check_before_training(
    questions: list[str], tmp_path: Path, rows: int, status: str
) -> None:
    long = [{"input": f"{n} what is " * 300, "target": "x"} for n in range(10)]
    pairs = [{"input": text, "target": "x"} for text in questions[:rows]]
    write(tmp_path / "train.jsonl", [*pairs, *long])
    write(tmp_path / "dev.jsonl", pairs[:20])
    config = TrainConfig(tmp_path, tmp_path / "out", from_scratch="tiny", max_source_length=100)
    [check] = [
        one for one in preflight(config, further=[("draft", enough_rows)]) if one.name == "draft"
    ]
    assert check.status == status
    if status == "failed":
        assert "100 training rows of at most 100 tokens; there are 99 of 109" in check.detail
