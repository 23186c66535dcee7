"""Artifacts of the hub: `load("owner/name")` and the commands, through the real client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_samples import folder_files
from hub_server import WRITER, HubServer

from edge.runtime.install import install_command

HubRun = Callable[..., Any]
TEXT = "what is the bridge in Berlin"

# Loads each argument, NAME or NAME@REVISION, and prints its answer or error. A "!" trusts its code.
LOAD = f"""
import json, os, sys
from edge.runtime import EdgeError, load
found = []
for argument in sys.argv[1:]:
    try:
        options = json.loads(os.environ.get("LOAD_OPTIONS", "{{}}"))
        options["trust_code"] = argument.endswith("!")
        with load(argument.rstrip("!"), **options) as model:
            found.append([model.generate({TEXT!r}).text, str(model.artifact.folder)])
    except EdgeError as error:
        found.append([type(error).__name__, str(error)])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def local(artifacts: Path) -> Path:
    """An artifact in onnx."""
    return artifacts / "onnx-int8"


@pytest.fixture(scope="module")
def answer(local: Path) -> str:
    from edge.runtime import load

    with load(local) as model:
        return model.generate(TEXT).text


@pytest.fixture
def loaded(hub_run: HubRun) -> Callable[..., list[list[str]]]:
    """Answer and folder, or kind and message of the error, of each id, in one new process."""

    def call(*ids: str, options: dict[str, Any] | None = None, **env: str) -> list[list[str]]:
        ended = hub_run(*ids, code=LOAD, LOAD_OPTIONS=json.dumps(options or {}), **env)
        assert ended.status == 0, ended.err
        found: list[list[str]] = json.loads(ended.out)
        return found

    return call


def test_load_by_id_online_and_offline(
    hub: HubServer, local: Path, answer: str, loaded: Callable[..., list[list[str]]], tmp_path: Path
) -> None:
    repository = hub.add("me/tiny", {".gitattributes": b"", **folder_files(local)})
    first = repository.refs["main"]
    other = {**folder_files(local), "notes.txt": b"x", "model.bin": b"never fetched"}
    second = repository.commit(other, "two", "next")
    by_name, by_branch, by_commit = loaded("me/tiny", "me/tiny@next", f"me/tiny@{first}")
    assert [one[0] for one in (by_name, by_branch, by_commit)] == [answer] * 3
    assert by_name[1] == by_commit[1]
    assert Path(by_name[1]).parts[-2:] == (first, "tiny")
    assert Path(by_branch[1]).parts[-2:] == (second, "tiny")
    # The artifact's own files as regular files, which take no space a second time.
    names = {path.name for path in Path(by_branch[1]).iterdir()}
    assert names == {path.name for path in (local).iterdir()}
    weights = Path(by_name[1]) / "model.onnx"
    assert not weights.is_symlink()
    assert weights.stat().st_nlink > 1
    assert not hub.fetched() & {"model.bin", "notes.txt", ".gitattributes"}
    hub.stop()
    assert loaded("me/tiny", HF_HUB_OFFLINE="1") == [by_name]
    assert loaded("me/tiny", options={"revision": "next", "verify": True}) == [by_branch]
    assert "HF_HUB_OFFLINE is set" in loaded("me/other", HF_HUB_OFFLINE="1")[0][1]


def test_a_local_folder_of_that_name_wins(
    hub: HubServer, local: Path, answer: str, loaded: Callable[..., list[list[str]]], tmp_path: Path
) -> None:
    shutil.copytree(local, tmp_path / "me" / "tiny")
    [found] = loaded("me/tiny")
    assert found == [answer, "me/tiny"]
    assert "There is no such folder" in loaded("me/tinny")[0][1]
    assert hub.asked == []


def test_what_is_no_intact_artifact(
    hub: HubServer, local: Path, loaded: Callable[..., list[list[str]]], tmp_path: Path
) -> None:
    files = folder_files(local)
    altered = bytearray(files["model.onnx"])
    altered[len(altered) // 2] ^= 1
    hub.add("me/altered", {**files, "model.onnx": bytes(altered)})
    hub.add("me/partial", {k: v for k, v in files.items() if k != "tokenizer.json"})
    hub.add("me/model", {"config.json": b"{}", "model.safetensors": b"x" * 100})
    hub.add("me/newer", {**files, "edge.json": b'{"schema_version": 99}'})
    hub.add("me/gated", files, gated=True)
    hub.add("me/longer", {**files, "model.onnx": files["model.onnx"] + b"?"})
    ids = ("altered", "partial", "model", "newer", "gated", "missing", "longer")
    found = loaded(*(f"me/{name}" for name in ids))
    assert {kind for kind, _ in found} == {"ArtifactError"}
    messages = [message for _, message in found]
    assert messages[0].startswith("me/altered/model.onnx is altered: its sha256 differs")
    assert messages[1] == "me/partial: tokenizer.json is missing in the repository"
    assert "me/model: not an artifact" in messages[2]
    assert "edge export me/model" in messages[2]
    assert "is newer than the schema" in messages[3]
    assert "me/gated: gated" in messages[4]
    assert "no such artifact" in messages[5]
    assert "me/longer: model.onnx has" in messages[6]
    assert "the manifest says" in messages[6]
    assert not any("/me/longer/" in a.path and "onnx" in a.path for a in hub.asked)
    assert not list((tmp_path / "hf").rglob("edge/*/altered"))
    # The model's weights are not fetched only to find out that it is no artifact.
    assert not any("/me/model/resolve" in a.path and "safetensors" in a.path for a in hub.asked)


def test_downloaded_torchscript_needs_trust(
    hub: HubServer, artifacts: Path, loaded: Callable[..., list[list[str]]], tmp_path: Path
) -> None:
    hub.add("me/script", folder_files(artifacts / "torchscript-int8"))
    # A state folder where nothing is recorded as exported here.
    refused, trusted = loaded("me/script", "me/script!", XDG_STATE_HOME=str(tmp_path / "state"))
    assert refused[0] == "ArtifactError"
    assert "trust_code=True" in refused[1]
    assert Path(trusted[1]).name == "script"


def test_the_library_is_an_extra(hub_run: HubRun, local: Path) -> None:
    without = "import sys; sys.modules['huggingface_hub'] = None\n"
    ended = hub_run("me/tiny", str(local), code=without + LOAD)
    [missing, found] = json.loads(ended.out)
    assert missing[0] == "MissingExtraError"
    assert missing[1] == (
        "me/tiny: no such folder; the hub needs huggingface_hub, which is not installed:"
        f" {install_command('hub')}"
    )
    assert found[1] == str(local)


def test_run_and_info_take_ids(hub: HubServer, local: Path, answer: str, hub_run: HubRun) -> None:
    hub.add("me/tiny", folder_files(local), private=True)
    ran = hub_run("run", "me/tiny", TEXT, HF_TOKEN=WRITER)
    assert (ran.status, ran.out.strip()) == (0, answer.strip())
    hub.stop()
    info = hub_run("info", "me/tiny", HF_HUB_OFFLINE="1")
    assert info.status == 0, info.err
    assert "onnx, int8" in info.out


@pytest.mark.slow
def test_bench_takes_ids(
    hub: HubServer, local: Path, answer: str, hub_run: HubRun, tmp_path: Path
) -> None:
    hub.add("me/tiny", folder_files(local))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"input": TEXT, "target": answer or "x"}) + "\n")
    command = ("bench", "me/tiny", "--data", rows, "--runs", 30, "--min-time", 0)
    ended = hub_run(*command, "--json", "r.json")
    assert ended.status in (0, 3), ended.err  # 30 runs show no target
    [result] = json.loads((tmp_path / "r.json").read_text())["results"]
    assert result["error"] is None
    assert result["format"] == "onnx"
    # The report of the downloaded copy is one of the uploaded artifact.
    push = ("push", result["artifact"], "me/tiny", "--report", "r.json")
    ended = hub_run(*push, HF_TOKEN=WRITER)
    assert ended.status == 0, ended.err
    assert b"Latency p95" in hub.repositories["model", "me/tiny"].files["README.md"]
