"""`edge quickstart`: the table of all formats, the next steps; with its defaults, the accuracy."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_readme import spoken_examples

from edge.cli.commands.quickstart import _prepare, _shown_artifact
from edge.runtime import load
from edge.runtime.artifact.manifest import read_manifest
from edge.runtime.errors import OutputExistsError
from edge.train.synthetic import generate

SPOKEN = Path(__file__).with_name("spoken_questions.jsonl")


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


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder and the printed text of the quickstart with its defaults: `make demo`."""
    folder = tmp_path_factory.mktemp("demo") / "edge-demo"
    return folder, run_quickstart(folder, OMP_NUM_THREADS=str(os.cpu_count()))


@pytest.mark.slow
def test_it_learns_the_task(demo: tuple[Path, str]) -> None:
    report = read_report(demo)
    assert len(report["results"]) == 8
    for result in report["results"]:
        assert result["accuracy"]["exact_match"] >= 0.80, result


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx-int8", "onnx-float32"])
def test_it_answers_spoken_questions(demo: tuple[Path, str], name: str) -> None:
    """Questions written by hand, most of them as a speech recognizer prints them."""
    lines = SPOKEN.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 40
    with load(demo[0] / "artifacts" / name) as model:
        answers = [answer.text for answer in model.generate([row["input"] for row in rows])]
    wrong = [
        (row, answer) for row, answer in zip(rows, answers, strict=True) if answer != row["target"]
    ]
    assert len(wrong) <= 4, wrong


@pytest.mark.slow
def test_the_answers_in_the_docs_are_the_models(demo: tuple[Path, str]) -> None:
    with load(demo[0] / "artifacts" / "onnx-int8") as model:
        for page, text, answer in spoken_examples():
            assert model.generate(text).text == answer, page
    [line] = [line for line in demo[1].splitlines() if "Or try this model:" in line]
    command = shlex.split(line.partition("edge ")[2])
    ended = subprocess.run(
        [sys.executable, "-m", "edge.cli", *command], capture_output=True, text=True
    )
    assert ended.stdout == "when was the bridge built\n"


def test_the_spoken_questions_are_not_in_the_training_data() -> None:
    rows = [json.loads(line) for line in SPOKEN.read_text(encoding="utf-8").splitlines()]
    texts = {
        str(row[column]).lower().rstrip("?")
        for part in generate().values()
        for row in part
        for column in ("input", "target")
    }
    assert not texts & {row["input"].lower().rstrip("?") for row in rows}
    common = texts & {row["target"].lower().rstrip("?") for row in rows}
    assert len(common) <= 8, common


def test_an_interrupted_run_is_not_in_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "edge-demo"
    command = [sys.executable, "-m", "edge.cli", "quickstart", "--output", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 60
        while not (folder / "data" / "train.jsonl").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert folder.is_dir()
    _prepare(folder, force=False)
    assert not list(folder.iterdir())
    (folder / "data").mkdir()
    (folder / "report.json").touch()
    with pytest.raises(OutputExistsError, match="--force"):
        _prepare(folder, force=False)
    (folder / "report.json").unlink()
    (folder / "mine.txt").touch()
    with pytest.raises(OutputExistsError):
        _prepare(folder, force=False)


def test_the_next_step_names_an_artifact_that_exists(artifacts: Path) -> None:
    found = [
        SimpleNamespace(folder=artifacts / name, manifest=read_manifest(artifacts / name))
        for name in ("gguf-f32", "onnx-int8")
    ]
    assert _shown_artifact(found) == artifacts / "onnx-int8"
    assert _shown_artifact(found[:1]) == artifacts / "gguf-f32"


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
