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
def flan(hub: HubServer, trained: Path) -> str:
    """The repository on the hub; returns its commit."""
    repository = hub.add(FLAN_T5_SMALL, flan_t5_small(trained))
    return repository.refs["main"]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(question_rows(24))
    (folder / "dev.jsonl").write_bytes(question_rows(4, first=100))
    return folder


# Runs several command lines in one process: importing torch takes longer than they do.
COMMANDS = """
import json, sys
from edge.cli.main import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as ended:
        print("status", ended.code or 0, flush=True)
"""


def test_check_train_and_export_by_id(
    hub: HubServer, flan: str, rows: Path, hub_run: HubRun, tmp_path: Path
) -> None:
    """The commit is in the record, in the manifest and in `edge info`."""
    repository = hub.repositories["model", FLAN_T5_SMALL]
    repository.refs["v1"] = flan
    repository.commit({**repository.files, "config.json": b"broken"}, "newer")
    copy = hub.add("me/copy", repository.commits[flan]).refs["main"]
    options = ("rows", "--vocabulary", "keep", "--model")
    check, train = ("check", *options), ("train", *options, FLAN_T5_SMALL, "--revision", "v1")
    export = ("export", "--format", "onnx", "--quantize", "none", "--output")
    commands = [
        (*check, "me/copy"),
        (*check, "me/copy@v9"),
        (*train, "--no-check", "--epochs", "1", "--output", "trained"),
        (*export, "direct", FLAN_T5_SMALL, "--revision", "v1"),
        (*export, "artifact", "trained"),
        ("info", "direct"),
        ("info", "artifact"),
    ]
    ended = hub_run(json.dumps(commands), code=COMMANDS)
    shown = " ".join(ended.out.split())
    assert f"me/copy @ {copy[:12]}: t5" in shown, ended
    assert "me/copy@v9: no such branch, tag or commit" in shown
    assert not any("/me/copy/resolve/" in a.path and "safetensors" in a.path for a in hub.asked)
    statuses = [line for line in ended.out.splitlines() if line.startswith("status ")]
    assert statuses[1:] == ["status 2", *["status 0"] * 5], ended
    record = json.loads((tmp_path / "trained" / "training.json").read_text())
    assert (record["model"], record["revision"]) == (FLAN_T5_SMALL, flan)
    assert record["hyperparameters"]["revision"] == "v1"
    assert "model.safetensors" in hub.fetched()
    assert not hub.fetched() & FOREIGN_WEIGHTS
    assert f"{FLAN_T5_SMALL} @ {flan}" in shown
    assert f"trained, trained from {FLAN_T5_SMALL} @ {flan}" in shown

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


@pytest.mark.slow
def test_export_offline_after_the_first_time(
    hub: HubServer, flan: str, hub_run: HubRun, tmp_path: Path
) -> None:
    export = ("export", FLAN_T5_SMALL, "--format", "onnx", "--quantize", "none", "--output")
    assert hub_run(*export, "online").status == 0
    hub.stop()
    for name, variables in (("offline", {"HF_HUB_OFFLINE": "1"}), ("gone", {})):
        ended = hub_run(*export, name, **variables)
        assert ended.status == 0, ended.err
        said = f"using the copy of {FLAN_T5_SMALL} in the cache, commit {flan}" in ended.err
        assert said == (name == "gone")
        manifest = json.loads((tmp_path / name / "edge.json").read_text())
        assert manifest["source"]["revision"] == flan


def test_unusable_ids_fail_in_one_line(hub: HubServer, rows: Path, hub_run: HubRun) -> None:
    hub.add("me/gated", {"config.json": b"{}", "model.safetensors": b"x"}, gated=True)
    hub.add("me/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    ended = hub_run("export", "me/gated", "--format", "onnx", "--output", "out")
    assert ended.status == 2
    [line] = ended.err.splitlines()
    assert line.startswith("edge: me/gated: gated. Ask for access at http://127.0.0.1")
    ended = hub_run("export", "me/pickled", "--format", "onnx", "--output", "out")
    assert ended.status == 2
    [line] = ended.err.splitlines()
    assert "no safetensors" in line or "safetensors" in line
    assert not hub.fetched() & FOREIGN_WEIGHTS


def test_a_revision_needs_a_hub_model(edge: Callable[..., Any], tmp_path: Path) -> None:
    ended = edge("export", tmp_path, "--format", "onnx", "--output", "out", "--revision", "v1")
    assert ended.status == 2
    assert "remove --revision" in ended.err
    ended = edge("train", tmp_path, "--from-scratch", "tiny", "--revision", "v1", "-o", "out")
    assert "--revision requires --model" in ended.err
