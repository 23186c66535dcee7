"""Training, checking and exporting by hub id, through the real commands and the real client."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_samples import FLAN_T5_SMALL, FOREIGN_WEIGHTS, flan_t5_small, question_rows
from hub_server import HubServer

HubRun = Callable[..., Any]


@pytest.fixture
def flan(hub: HubServer, random_model: Callable[..., Path]) -> str:
    """The repository on the hub; returns its commit."""
    repository = hub.add(FLAN_T5_SMALL, flan_t5_small(random_model(tied=False, written_by=4)))
    return repository.refs["main"]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(question_rows(24))
    (folder / "dev.jsonl").write_bytes(question_rows(4, first=100))
    return folder


def test_check_needs_no_weights(hub: HubServer, flan: str, rows: Path, hub_run: HubRun) -> None:
    hub.add("me/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    ended = hub_run("check", "rows", "--model", FLAN_T5_SMALL)
    assert f"{FLAN_T5_SMALL} @ {flan[:12]}: t5" in ended.out, ended
    assert not hub.fetched() & ({"model.safetensors"} | FOREIGN_WEIGHTS)
    ended = hub_run("check", "rows", "--model", FLAN_T5_SMALL, "--revision", "v9")
    assert f"{FLAN_T5_SMALL}@v9: no such branch, tag or commit" in ended.out.replace("\n", " ")


def test_train_then_export_by_id(
    hub: HubServer, flan: str, rows: Path, hub_run: HubRun, tmp_path: Path
) -> None:
    """The commit is in the record, in the manifest and in `edge info`; offline afterwards."""
    repository = hub.repositories["model", FLAN_T5_SMALL]
    repository.refs["v1"] = flan
    repository.commit({**repository.files, "config.json": b"broken"}, "newer")
    by_id = ("train", "rows", "--model", FLAN_T5_SMALL, "--revision", "v1", "--epochs", 1)
    ended = hub_run(*by_id, "--output", "trained", "--vocabulary", "keep", "--no-check")
    assert ended.status == 0, ended.err
    record = json.loads((tmp_path / "trained" / "training.json").read_text())
    assert (record["model"], record["revision"]) == (FLAN_T5_SMALL, flan)
    assert record["hyperparameters"]["revision"] == "v1"
    assert not hub.fetched() & FOREIGN_WEIGHTS
    hub.stop()
    export = ("export", "--format", "onnx", "--no-condition", "--output")
    ended = hub_run(*export, "direct", FLAN_T5_SMALL, "--revision", "v1", HF_HUB_OFFLINE="1")
    assert ended.status == 0, ended.err
    ended = hub_run(*export, "artifact", "trained", HF_HUB_OFFLINE="1")
    assert ended.status == 0, ended.err

    def source(folder: str) -> dict[str, Any]:
        manifest = json.loads((tmp_path / folder / "edge.json").read_text())
        found: dict[str, Any] = manifest["source"]
        return found

    assert (source("direct")["model"], source("direct")["revision"]) == (FLAN_T5_SMALL, flan)
    assert source("artifact")["model"] == "trained"
    assert source("artifact")["base_model"] == FLAN_T5_SMALL
    assert source("artifact")["base_revision"] == flan
    card = (tmp_path / "artifact" / "README.md").read_text()
    assert f"base_model: {FLAN_T5_SMALL}" in card
    for folder, words in (("direct", "@ "), ("artifact", f"trained from {FLAN_T5_SMALL} @ ")):
        info = " ".join(hub_run("info", folder).out.split())
        assert f"{words}{flan}" in info


def test_unusable_ids_fail_in_one_line(hub: HubServer, rows: Path, hub_run: HubRun) -> None:
    hub.add("me/gated", {"config.json": b"{}", "model.safetensors": b"x"}, gated=True)
    hub.add("me/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    for name, reason in (("me/gated", "me/gated: gated. Ask for access"),):
        ended = hub_run("export", name, "--format", "onnx", "--output", "out")
        assert ended.status == 2
        [line] = ended.err.splitlines()
        assert reason in line
    ended = hub_run("train", "rows", "--model", "me/pickled", "--output", "out")
    assert ended.status == 2
    assert "me/pickled: no weights in safetensors on the hub" in ended.err
    assert not hub.fetched() & FOREIGN_WEIGHTS


def test_a_revision_needs_a_hub_model(edge: Callable[..., Any], tmp_path: Path) -> None:
    ended = edge("export", tmp_path, "--format", "onnx", "--output", "out", "--revision", "v1")
    assert ended.status == 2
    assert "remove --revision" in ended.err
    ended = edge("train", tmp_path, "--from-scratch", "tiny", "--revision", "v1", "-o", "out")
    assert "--revision requires --model" in ended.err
