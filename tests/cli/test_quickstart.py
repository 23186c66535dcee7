"""`edge quickstart`: the table of all formats, the next steps; with its defaults, the accuracy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run_quickstart(folder: Path, *options: str, **environment: str) -> str:
    """The printed text."""
    ended = subprocess.run(
        [sys.executable, "-m", "edge.cli", "quickstart", "--output", str(folder), *options],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder and the printed text, after a training that was cut short."""
    folder = tmp_path_factory.mktemp("quickstart") / "edge-demo"
    return folder, run_quickstart(folder, "--time-limit", "20s", "--runs", "30")


@pytest.mark.slow
def test_it_learns_the_task(tmp_path: Path) -> None:
    printed = run_quickstart(tmp_path / "edge-demo", OMP_NUM_THREADS=str(os.cpu_count()))
    report = read_report((tmp_path / "edge-demo", printed))
    assert len(report["results"]) == 8
    for result in report["results"]:
        assert result["accuracy"]["exact_match"] >= 0.80, result


def test_all_formats_are_in_the_table(quickstart: tuple[Path, str]) -> None:
    report = read_report(quickstart)
    found = {(result["format"], result["quantization"]) for result in report["results"]}
    assert found == {
        ("onnx", "int8"),
        ("onnx", "float32"),
        ("ctranslate2", "int8"),
        ("ctranslate2", "float32"),
        ("gguf", "q8_0"),
        ("gguf", "f32"),
        ("torchscript", "int8"),
        ("torchscript", "float32"),
    }
    printed = quickstart[1]
    for word in ("size", "exact match", "ROUGE-L", "BLEU", "eval_loss", "p50", "p95", "meets"):
        assert word in printed
    assert "<svg" in (quickstart[0] / "report.html").read_text()
    exact = [r for r in report["results"] if r["quantization"] in ("float32", "f32")]
    assert len({r["accuracy"]["exact_match"] for r in exact}) == 1
    assert exact[0]["accuracy"]["exact_match"] > 0  # even this training learns something


def test_unseen_words_are_scored_separately(quickstart: tuple[Path, str]) -> None:
    assert re.search(r"words all seen in training \(\d+ rows\): \d", quickstart[1])
    assert re.search(r"words never seen \(\d+ rows\): \d", quickstart[1])


def test_it_ends_with_the_next_commands(quickstart: tuple[Path, str]) -> None:
    tail = quickstart[1].rsplit("Next", 1)[1]
    for command in ("edge train my-data", "edge export my-model", "edge bench my-artifacts"):
        assert command in tail


def test_a_second_run_is_refused_without_force(quickstart: tuple[Path, str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "edge.cli", "quickstart", "--output", str(quickstart[0])],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "--force" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def read_report(quickstart: tuple[Path, str]) -> Any:
    return json.loads((quickstart[0] / "report.json").read_text())
