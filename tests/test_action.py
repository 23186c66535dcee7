"""The steps of action.yml, run in bash as GitHub's runner does, on a tiny real model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parent.parent
_EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
_ENOUGH = "--runs 90 --min-time 0 --limit 20"


@dataclass
class Ended:
    """How the steps ended: the failed step's name or None, outputs, summary and log."""

    failed: str | None = None
    status: int = 0
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    log: str = ""


def run_action(folder: Path, **given: str) -> Ended:
    """Run every step with its inputs put in, until one fails."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    names = {name.replace("-", "_"): name for name in action["inputs"]}
    values = {}
    for name, spec in action["inputs"].items():
        if spec.get("required"):
            assert name.replace("-", "_") in given, name
        values[f"inputs.{name}"] = spec.get("default", "")
    values |= {f"inputs.{names[name]}": value for name, value in given.items()}
    ended = Ended()

    def filled(text: str) -> str:
        return _EXPRESSION.sub(lambda found: values[found[1]], text)

    summary = folder / "summary.md"
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]  # inputs in a script would be run as a part of it
        outputs = folder / f"{step['name']}.out"
        outputs.touch()
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env={
                **os.environ,
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                "RUNNER_TEMP": str(folder),
                "GITHUB_ACTION_PATH": str(ROOT),
                "GITHUB_OUTPUT": str(outputs),
                "GITHUB_STEP_SUMMARY": str(summary),
                **{name: filled(text) for name, text in step["env"].items()},
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        ended.log += done.stdout + done.stderr
        for line in outputs.read_text().splitlines():
            name, _, value = line.partition("=")
            values[f"steps.{step.get('id')}.outputs.{name}"] = value
        if done.returncode:
            ended.failed, ended.status = step["name"], done.returncode
            break
    ended.summary = summary.read_text() if summary.exists() else ""
    for name, output in action["outputs"].items():
        ended.outputs[name] = values.get(_EXPRESSION.fullmatch(output["value"])[1], "")
    return ended


@pytest.fixture(scope="module")
def artifact(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model in float32."""
    from edge.export.api import export

    folder = tmp_path_factory.mktemp("old") / "onnx-float32"
    export(trained, folder, "onnx", "none")
    return folder


@pytest.fixture(scope="module")
def worse(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model with a damaged embedding: as fast, but its answers are wrong."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("worse") / "model"
    shutil.copytree(trained, folder)
    path = folder / "model.safetensors"
    weights = load_file(path)
    torch.manual_seed(0)
    weights["shared.weight"] += 10 * torch.randn_like(weights["shared.weight"])
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def test_the_same_model_passes(trained: Path, dataset: Path, tmp_path: Path) -> None:
    ended = run_action(
        tmp_path,
        model=str(trained),
        base_model=str(trained),
        data=str(dataset / "dev.jsonl"),
        quantize="none",
        bench_options=_ENOUGH,
        install="none",
    )
    report = json.loads(Path(ended.outputs["report"]).read_text())
    [regression] = report["regressions"]
    assert (regression["lost"], regression["won"]) == (0, 0)
    # Two copies differ by noise alone; 1 run of 100 is called slower.
    assert ended.failed is None or regression["is_slower"], ended.log
    assert ended.summary.startswith("# Benchmark")
    assert "0 answers lost, 0 won" in ended.summary
    assert (Path(ended.outputs["artifact"]) / "edge.json").is_file()


def test_a_worse_model_fails_and_the_summary_says_why(
    trained: Path, worse: Path, artifact: Path, dataset: Path, tmp_path: Path
) -> None:
    ended = run_action(
        tmp_path,
        model=str(worse),
        base_artifact=str(artifact),
        data=str(dataset),
        quantize="none",
        bench_options=_ENOUGH,
        install="none",
    )
    assert (ended.failed, ended.status) == ("Benchmark", 1), ended.log
    assert "less accurate" in ended.log
    assert "answers lost" in ended.summary


def test_a_slower_engine_fails(
    artifact: Path,
    dataset: Path,
    edge: Callable[..., Any],
    engines_with: Callable[[str], None],
    tmp_path: Path,
) -> None:
    """A real engine that sleeps before each answer, for the new artifact only."""
    new = tmp_path / "new"
    shutil.copytree(artifact, new)
    engines_with(_SLOW_IN.format(folder=str(new)))
    report = tmp_path / "report.json"
    options = ("--data", dataset / "dev.jsonl", "--json", report, *_ENOUGH.split())
    ended = edge("bench", "--compare-artifact", artifact, new, *options)
    assert ended.status == 1, ended
    [found] = json.loads(report.read_text())["regressions"]
    assert found["is_slower"]
    assert not found["is_less_accurate"]
    assert 15 < found["shift"]["low"] <= found["shift"]["ms"] <= found["shift"]["high"]
    ended = edge("bench", "--compare-artifact", new, artifact, *options)
    assert ended.status == 0, ended.err
    [found] = json.loads(report.read_text())["regressions"]
    assert found["shift"]["p_faster"] < 0.01
    assert "faster: -" in found["sentence"]


def test_what_is_refused(
    assert_refused: Callable[..., str], artifact: Path, dataset: Path, tmp_path: Path
) -> None:
    new = artifact
    data = ("--data", dataset / "dev.jsonl")
    line = assert_refused("bench", new, *data, "--compare-artifact", new)
    assert "compared with itself" in line
    assert_refused("bench", new, *data, "--compare-artifact", tmp_path)
    ended = run_action(tmp_path, model=str(tmp_path), data=str(dataset), install="none")
    assert (ended.failed, ended.status) == ("Export", 2)
    assert "::error::" in ended.log
    both = {"base_model": str(tmp_path), "base_artifact": str(artifact)}
    ended = run_action(tmp_path, model=str(tmp_path), data=str(dataset), install="none", **both)
    assert (ended.failed, ended.status) == ("Export", 2)
    assert "not both" in ended.log
    missing = {"base_artifact": str(tmp_path / "none"), "model": str(tmp_path / "no-model")}
    ended = run_action(tmp_path, data=str(dataset), install="none", **missing)
    assert (ended.failed, ended.status) == ("Export", 2)
    assert "none is not an artifact" in ended.log  # found before the export


_SLOW_IN = """
import time
from edge.runtime.engines.onnx.engine import OnnxEngine
create, answer = OnnxEngine.__init__, OnnxEngine.generate
def created(self, artifact, **options):
    self.slow = str(artifact.folder) == {folder!r}
    create(self, artifact, **options)
def slowed(self, *arguments, **options):
    time.sleep(0.02 * self.slow)
    return answer(self, *arguments, **options)
OnnxEngine.__init__, OnnxEngine.generate = created, slowed
"""
