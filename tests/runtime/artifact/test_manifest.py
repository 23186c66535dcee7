"""A manifest or artifact that is missing, cut or altered is refused in one clear sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime import Artifact
from edge.runtime.artifact.manifest import replace_runtime
from edge.runtime.errors import ArtifactError


@pytest.fixture
def copy(artifacts: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    shutil.copytree(artifacts / "onnx-int8", folder)
    return folder


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "edge.json"
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def test_a_whole_artifact_opens(copy: Path) -> None:
    manifest = Artifact.open(copy, verify=True).manifest
    assert manifest.format == "onnx"
    assert set(manifest.files) == {p.name for p in copy.iterdir()} - {"edge.json"}
    assert manifest.size == sum(p.stat().st_size for p in copy.iterdir()) - (
        (copy / "edge.json").stat().st_size
    )


def test_a_truncated_file_is_noticed_without_hashing(copy: Path) -> None:
    path = copy / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"model\.onnx has .* truncated or altered"):
        Artifact.open(copy)


def test_an_altered_byte_is_noticed_by_verify(copy: Path) -> None:
    path = copy / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    Artifact.open(copy)
    with pytest.raises(ArtifactError, match=r"model\.onnx is altered"):
        Artifact.open(copy, verify=True)


def test_a_missing_file_and_a_link_are_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "model.onnx").rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"model\.onnx is missing"):
        Artifact.open(copy)
    (copy / "model.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="not a regular file"):
        Artifact.open(copy)


def test_a_newer_schema_says_what_to_do(copy: Path) -> None:
    change(copy, lambda m: m.update(schema_version=99, edge_version="7.1"))
    with pytest.raises(
        ArtifactError, match=r"schema 99 is newer than the schema of edge-t5"
    ) as caught:
        Artifact.open(copy)
    assert "it was written by edge-t5 7.1: pip install 'edge-t5>=7.1'" in str(caught.value)


@pytest.mark.parametrize("version", [None, 7, "0+unknown", "7.1'; rm -rf ~; '", "\x1b[2J"])
def test_a_newer_schema_of_an_unknown_version(copy: Path, version: object) -> None:
    change(copy, lambda m: m.update(schema_version=99, edge_version=version))
    with pytest.raises(ArtifactError, match="upgrade: pip install -U edge-t5") as c:
        Artifact.open(copy)
    assert "rm -rf" not in str(c.value)
    assert "\x1b" not in str(c.value)


def test_runtime_settings_are_replaced_alone(copy: Path) -> None:
    change(copy, lambda m: m.update(of_a_later_version={"β": [1, 2.5]}))
    before = json.loads((copy / "edge.json").read_text(encoding="utf-8"))
    replace_runtime(copy, {"threads": 3})
    after = json.loads((copy / "edge.json").read_text(encoding="utf-8"))
    assert after == {**before, "runtime": {"threads": 3}}
    assert list(after) == list(before)
    Artifact.open(copy, verify=True)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b", "..", "edge.json", ""])
def test_file_names_can_not_leave_the_folder(copy: Path, name: str) -> None:
    change(copy, lambda m: m["files"].update({name: {"sha256": "0" * 64, "size": 1}}))
    with pytest.raises(ArtifactError, match="not a plain file name"):
        Artifact.open(copy)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda m: m.pop("format"), "format"),
        (lambda m: m.update(format=3), "format must be str"),
        (lambda m: m["architecture"].update(d_kv="x"), "d_kv must be int"),
        (lambda m: m["architecture"].update(d_kv=0), "d_kv is 0, must be from 1"),
        (lambda m: m["architecture"].update(eos_token_id=10**6), "outside the vocabulary"),
        (lambda m: m["tokenizer"].update(pieces=10**6), "pieces"),
        (lambda m: m.update(files={}), "0 files"),
        (
            lambda m: m.update(limits={"max_input_tokens": 0}),
            "max_input_tokens is 0, must be from 1",
        ),
        (lambda m: m.update(schema_version=None), "schema_version"),
    ],
)
def test_malformed_manifests(copy: Path, edit: Any, complaint: str) -> None:
    change(copy, edit)
    with pytest.raises(ArtifactError, match=r"edge\.json") as caught:
        Artifact.open(copy)
    assert complaint in str(caught.value)


def test_no_json_and_no_artifact(copy: Path, trained: Path, artifacts: Path) -> None:
    (copy / "edge.json").write_text("{")
    with pytest.raises(ArtifactError, match="not JSON"):
        Artifact.open(copy)
    with pytest.raises(ArtifactError, match="no such folder"):
        Artifact.open(copy / "none")
    with pytest.raises(ArtifactError, match="model folder: edge export"):
        Artifact.open(trained)
    with pytest.raises(ArtifactError, match="It contains several artifacts: .*onnx-int8"):
        Artifact.open(artifacts)


def test_a_path_that_is_no_artifact_names_what_to_use(artifacts: Path, tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    shutil.copytree(artifacts / "onnx-int8", demo / "artifacts" / "onnx-int8")
    with pytest.raises(ArtifactError, match="several artifacts: .*demo/artifacts/onnx-int8"):
        Artifact.open(demo)
    with pytest.raises(ArtifactError, match=r"a file of the artifact .*onnx-int8: give that"):
        Artifact.open(demo / "artifacts" / "onnx-int8" / "edge.json")


def test_a_file_that_cant_be_read_is_named(
    copy: Path, monkeypatch: pytest.MonkeyPatch, assert_refused: Callable[..., str]
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("edge.runtime.artifact.sha256_of", refuse)
    line = assert_refused("verify", copy)
    assert "can't be read (Permission denied)" in line
    assert str(copy) in line
