"""What a draft head was fitted to: in the manifest, `edge info`, the card and `edge export`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.export.api import export
from edge.export.draft_head import DRAFT_HEAD_NAME, read_draft_head
from edge.runtime.artifact import Artifact
from edge.runtime.artifact.manifest import read_manifest
from edge.runtime.rows import data_sha256


@pytest.fixture(scope="module")
def exported(drafted_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts of a model with a head: onnx, which takes it along, and ctranslate2."""
    folder = tmp_path_factory.mktemp("drafted")
    export(drafted_model, folder, ["onnx", "ctranslate2"], "none")
    return folder


def test_the_manifest_has_the_record(exported: Path, drafted_model: Path, dataset: Path) -> None:
    record = read_draft_head(drafted_model / DRAFT_HEAD_NAME).record
    assert record["sha256"] == data_sha256(dataset / "train.jsonl")
    manifest = Artifact.open(exported / "onnx-float32", verify=True).manifest
    assert manifest.draft_head == record
    assert {*record} == {
        *("data", "sha256", "rows", "phrases", "held_out", "keep_accuracy", "whole_answers")
    }
    assert read_manifest(exported / "ctranslate2-float32").draft_head == {}


def test_info_and_card_have_one_line(exported: Path, edge: Callable[..., Any]) -> None:
    record = read_manifest(exported / "onnx-float32").draft_head
    line = f"fitted to {record['rows']:,} rows of train.jsonl; on {record['held_out']} held-out"
    shown = edge("info", exported / "onnx-float32")
    [found] = [one for one in shown.out.splitlines() if one.startswith("draft head")]
    assert line in found
    assert f"{record['keep_accuracy']:.1%} of the tokens" in found
    assert line in (exported / "onnx-float32" / "README.md").read_text()
    [found] = [
        one
        for one in edge("info", exported / "ctranslate2-float32").out.splitlines()
        if one.startswith("draft head")
    ]
    assert found.split() == ["draft", "head", "none"]
    assert "draft head" not in (exported / "ctranslate2-float32" / "README.md").read_text()
    values = json.loads(edge("info", exported / "onnx-float32", "--json").out)
    assert values["draft_head"] == record


def test_the_hub_layout_has_no_head(drafted_model: Path, tmp_path: Path) -> None:
    [made] = export(drafted_model, tmp_path / "made", "onnx", "none", layout="hub")
    assert made.manifest.draft_head == {}
    assert "draft head" not in (made.folder / "README.md").read_text()


def test_artifacts_from_before_have_none(artifacts: Path, tmp_path: Path) -> None:
    values = json.loads((artifacts / "onnx-int8" / "edge.json").read_text())
    del values["draft_head"]
    (tmp_path / "edge.json").write_text(json.dumps(values))
    assert read_manifest(tmp_path).draft_head == {}


def test_a_forged_record_is_shown_on_one_line(
    exported: Path, edge: Callable[..., Any], tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "artifact"
    shutil.copytree(exported / "onnx-float32", folder)
    values = json.loads((folder / "edge.json").read_text())
    values["draft_head"] = {"rows": "\x1b[31m", "data": {"a": [1]}, "keep_accuracy": 10**400}
    (folder / "edge.json").write_text(json.dumps(values))
    shown = edge("info", folder)
    assert shown.status == 0, shown.err
    assert "\x1b" not in shown.out


def test_export_says_so(drafted_model: Path, edge: Callable[..., Any], tmp_path: Path) -> None:
    done = edge("export", drafted_model, "-f", "onnx", "-q", "none", "-o", tmp_path / "made")
    assert done.status == 0, done.err
    assert "  draft head: fitted to " in done.out
