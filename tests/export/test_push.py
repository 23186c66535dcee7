"""Uploads to a hub on the loopback through the real client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import READER, WRITER, HubServer
from huggingface_hub import ModelCard

from edge.export.push import model_files, without_paths
from edge.runtime.artifact import Artifact
from edge.runtime.errors import ModelError

HubRun = Callable[..., Any]


@pytest.fixture(scope="module")
def model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a record of its training, and files that are nobody's business."""
    folder = tmp_path_factory.mktemp("push") / "model"
    shutil.copytree(trained, folder)
    record = json.loads((folder / "training.json").read_text())
    record["model"] = "/home/anna/models/base"
    (folder / "README.md").unlink()  # its card shows the training's own values
    record["data"]["path"] = "/home/anna/secret/rows.jsonl"
    record["hyperparameters"] |= {"data": "/home/anna/secret/rows.jsonl", "output": "/home/anna/x"}
    record["eval"] = {"exact_match": 0.75, "rouge_l": 0.87654321, "bleu": 61.5, "eval_loss": 0.2}
    (folder / "training.json").write_text(json.dumps(record))
    for name in ("pytorch_model.bin", "optimizer.pt", ".env"):
        (folder / name).write_text("not for upload")
    return folder


@pytest.fixture(scope="module")
def artifact(artifacts: Path) -> Path:
    return artifacts / "onnx-int8"


def report_of(artifact: Path, **changes: Any) -> dict[str, Any]:
    """A benchmark report with one result, as `edge bench --json` writes."""
    manifest = Artifact.open(artifact).manifest
    accuracy = {
        "rows": 20,
        "exact_match": 0.95,
        "rouge_l": 0.98,
        "bleu": 90.25,
        "chrf": 93.5,
        "eval_loss": 0.125,
        "intervals": {},
    }
    result = {
        "artifact": str(artifact),
        "format": manifest.format,
        "quantization": manifest.quantization,
        "size_mb": manifest.size / 1e6,
        "threads": 2,
        "batch": 1,
        "concurrency": 1,
        "error": None,
        "accuracy": accuracy,
        "latency": {"runs": 100, "p50": 12.345, "p95": 17.891},
        "verdict": "meets",
        "verdict_reason": "",
    }
    slower = {**result, "batch": 8, "latency": {"runs": 100, "p50": 70.0, "p95": 80.0}}
    return {
        "schema_version": 3,
        "kind": "artifacts",
        "created": "2026-11-28T00:00:00+00:00",
        "interrupted": False,
        "target_ms": 100.0,
        "command": "edge bench",
        "data": {"path": "/home/anna/secret/dev.jsonl", "rows": 20, "sha256": None},
        "machine": {"cpu": "Test CPU", "cores": 2},
        "baseline": None,
        "settings": {},
        "notes": [],
        "winner": None,
        "results": [slower, {**result, **changes}],
    }


def test_an_artifact_with_its_report(
    hub: HubServer, artifact: Path, hub_run: HubRun, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in artifact.iterdir()}
    (tmp_path / "report.json").write_text(json.dumps(report_of(artifact)))
    command = ("push", artifact, "me/tiny", "--report", "report.json", "--message", "First version")
    ended = hub_run(*command, HF_TOKEN=WRITER)
    assert ended.status == 0, ended.err
    repository = hub.repositories["model", "me/tiny"]
    commit = repository.refs["main"]
    assert ended.out.strip() == f"{hub.endpoint}/me/tiny: {len(before)} files, commit {commit}"
    assert WRITER not in ended.out + ended.err
    assert repository.messages == ["", "First version"]  # made, and one commit
    files = dict(repository.files)
    del files[".gitattributes"]
    assert set(files) == set(before)
    changed = {name for name in files if files[name] != before[name]}
    assert changed == {"README.md", "edge.json"}
    assert {path.name: path.read_bytes() for path in artifact.iterdir()} == before
    card = ModelCard(files["README.md"].decode())
    assert card.data.model_name == "tiny"
    found = {one.metric_name: one.metric_value for one in card.data.eval_results}
    assert found == {
        "Exact match": 0.95,
        "ROUGE-L": 0.98,
        "BLEU": 90.25,
        "chrF": 93.5,
        "Loss (nats per token)": 0.125,
        "Latency p50 (ms; batch 1, 2 threads, Test CPU)": 12.35,
        "Latency p95 (ms; batch 1, 2 threads, Test CPU)": 17.89,
    }
    assert {one.dataset_name for one in card.data.eval_results} == {"dev.jsonl"}
    assert b"anna" not in files["README.md"]
    assert "base_model" not in card.data.to_dict()  # "model" is no model of the hub
    assert 'load("me/tiny")' in card.text
    assert "extras `hub,onnx`" in card.text
    # What was uploaded loads, with its hashes checked.
    ran = hub_run("run", "me/tiny", "what is the bridge")
    assert ran.status == 0, ran.err
    # The same again changes nothing.
    assert hub_run(*command, HF_TOKEN=WRITER).status == 0
    assert repository.refs["main"] == commit


def test_a_branch_and_a_private_repository(hub: HubServer, artifact: Path, hub_run: HubRun) -> None:
    push = ("push", artifact, "me/tiny")
    assert hub_run(*push, "--private", "--revision", "v1", HF_TOKEN=WRITER).status == 0
    repository = hub.repositories["model", "me/tiny"]
    assert repository.private
    assert set(repository.files) == {".gitattributes"}
    assert "edge.json" in repository.commits[repository.refs["v1"]]
    assert repository.messages[-1] == "Upload onnx-int8 by edge-t5"
    repository.private = False
    refused = hub_run(*push, "--private", HF_TOKEN=WRITER)
    assert refused.status == 2
    assert "me/tiny: exists and is public" in refused.err
    assert set(repository.files) == {".gitattributes"}


def test_a_model_folder(hub: HubServer, model: Path, hub_run: HubRun) -> None:
    ended = hub_run("push", model, "me/model", HF_TOKEN=WRITER)
    assert ended.status == 0, ended.err
    files = hub.repositories["model", "me/model"].files
    assert set(files) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    }
    assert files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    pieces = files["tokenizer.json"]  # a piece may be a part of "Savanna"
    assert b"/home" not in pieces
    assert not any(b"anna" in content for content in files.values() if content is not pieces)
    record = json.loads(files["training.json"])
    assert record["text_path"] == json.loads((model / "training.json").read_text())["text_path"]
    assert record["data"]["path"] == "rows.jsonl"
    card = ModelCard(files["README.md"].decode())
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert found == {"exact_match": 0.75, "rouge": 0.8765, "bleu": 61.5, "loss": 0.2}
    assert {one.dataset_name for one in card.data.eval_results} == {"rows.jsonl"}


def test_what_is_not_uploaded(
    artifact: Path, model: Path, assert_refused: Callable[..., str], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(artifact, damaged)
    weights = damaged / "model.onnx"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (tmp_path / "empty").mkdir()
    other = report_of(artifact, quantization="int4")
    other["results"] = other["results"][1:]
    (tmp_path / "other.json").write_text(json.dumps(other))
    for arguments, reason in (
        ((damaged, "me/tiny"), "is altered: its sha256 differs"),
        (
            (tmp_path / "empty", "me/tiny"),
            "empty: neither an artifact (edge.json)",
        ),
        ((tmp_path / "nothing", "me/tiny"), "nothing: no such folder"),
        ((artifact, "tiny"), "'tiny' is not a hub id: give OWNER/NAME"),
        ((artifact, "me/a b"), "is not a hub id"),
        ((artifact, "me/tiny", "--report", tmp_path / "other.json"), "no result of this artifact"),
        ((artifact, "me/tiny", "--report", tmp_path / "no.json"), "no.json: can't be read"),
        ((model, "me/tiny", "--report", tmp_path / "other.json"), "--report needs an artifact"),
    ):
        assert reason in assert_refused("push", *arguments)


# Pushes a folder to each OWNER/NAME=TOKEN, and prints the error of each.
PUSH = """
import json, os, sys
from edge.export.push import push
from edge.runtime.errors import EdgeError
errors = []
for argument in sys.argv[2:]:
    name, _, os.environ["HF_TOKEN"] = argument.partition("=")
    try:
        push(sys.argv[1], name)
        errors.append("")
    except EdgeError as error:
        errors.append(str(error))
print(json.dumps(errors))
"""


def test_refusals_of_the_hub(hub: HubServer, artifact: Path, hub_run: HubRun) -> None:
    hub.refuse_commits = True
    asked = ("me/a=", "me/b=hf_wrong", f"me/c={READER}", f"other/d={WRITER}", f"me/e={WRITER}")
    ended = hub_run(artifact, *asked, code=PUSH)
    assert ended.status == 0, ended.err
    none, wrong, reader, other, broken = json.loads(ended.out)
    assert none == "me/a: no token. Log in with `hf auth login` or set HF_TOKEN"
    assert "me/b: the hub does not accept the token" in wrong
    assert "me/c: the token does not permit this (You don't have the rights" in reader
    assert "other/d: the token does not permit this" in other
    assert "me/e: the hub answered with status 500" in broken
    for token in (READER, WRITER, "hf_wrong"):
        assert token not in ended.out
    assert set(hub.repositories) == {("model", "me/e")}
    assert set(hub.repositories["model", "me/e"].files) == {".gitattributes"}
    hub.stop()
    ended = hub_run("push", artifact, "me/tiny", HF_TOKEN=WRITER)
    assert ended.status == 1
    [line] = ended.err.splitlines()
    assert line.startswith(f"edge: me/tiny: {hub.endpoint} can't be reached (")


def test_a_folder_without_weights_is_no_model(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        model_files(folder, "me/model")
    (folder / "tokenizer.json").unlink()


def test_a_card_of_ones_own_stays(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / "README.md").write_text("# Mine\n")
    assert model_files(folder, "me/model")["README.md"] == folder / "README.md"


def test_hub_names_stay_in_the_record() -> None:
    record = {
        "model": "google/flan-t5-small",
        "revision": "a" * 40,
        "data": {"path": "hub:me/rows#train"},
        "hyperparameters": {"model": "google/flan-t5-small", "output": "/home/anna/out"},
    }
    cleaned = without_paths(record)
    assert cleaned == {**record, "hyperparameters": {**record["hyperparameters"], "output": "out"}}
