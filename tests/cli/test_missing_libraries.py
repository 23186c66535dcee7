"""A library that is not installed: one line names it and the extra, from every command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_surface import COMMANDS

from edge.runtime.install import EXTRAS_OF, install_command

# Hides libraries from the process and from its children, as if they were not installed.
HIDING = """
import os, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ.get("EDGE_TEST_HIDDEN", "").split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "sitecustomize.py").write_text(HIDING)
    return folder


def run(hooked: Path, hidden: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "edge.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(hooked), "EDGE_TEST_HIDDEN": hidden},
    )


CASES = [
    ("run ONNX x", "onnxruntime", "onnx"),
    ("run CTRANSLATE2 x", "ctranslate2", "ctranslate2"),
    ("run GGUF x", "llama_cpp", "gguf"),
    ("run TORCHSCRIPT x", "torch", "torchscript"),
    ("run ONNX x --regex a+", "llguidance", "constrained"),
    ("run ONNX x --output-schema SCHEMA", "jsonschema", "schema"),
    ("run ONNX --input rows.parquet", "pyarrow", "parquet"),
    ("run owner/name x", "huggingface_hub", "hub"),
    ("chat ONNX", "onnxruntime", "onnx"),
    ("verify GGUF", "llama_cpp", "gguf"),
    ("verify ONNX --source MODEL", "torch", "export"),
    ("verify ONNX --source MODEL", "transformers", "export"),
    ("serve ONNX", "fastapi", "serve"),
    ("tune ONNX", "onnxruntime", "onnx"),
    ("bench ONNX --data ROWS", "sacrebleu", "bench"),
    ("bench ONNX --data ROWS", "rouge_score", "bench"),
    ("bench ONNX --data ROWS --html OUT.html", "jinja2", "bench"),
    ("bench-speculation ONNX --data ROWS", "onnxruntime", "onnx"),
    ("bench-engines MODEL -f onnx", "torch", "export"),
    ("draft fit MODEL --data ROWS", "torch", "export"),
    ("report REPORT", "jsonschema", "bench"),
    ("compare REPORT REPORT", "jsonschema", "bench"),
    ("compile MODEL --data ROWS -o OUT", "torch", "export"),
    ("compile MODEL --data ROWS -o OUT", "transformers", "export"),
    ("compile MODEL --data ROWS -o OUT", "rouge_score", "bench"),
    ("export MODEL -f onnx -o OUT", "onnx", "export-onnx"),
    ("export MODEL -f ctranslate2 -o OUT", "ctranslate2", "export-ctranslate2"),
    ("export MODEL -f gguf -o OUT", "gguf", "export-gguf"),
    ("export MODEL -f gguf -o OUT", "llama_cpp", "export-gguf"),
    ("export MODEL -f onnx -o OUT", "torch", "export"),
    ("export MODEL -f onnx -o OUT", "transformers", "export"),
    ("export MODEL -f onnx -o OUT", "safetensors", "export"),
    ("push MODEL owner/name", "huggingface_hub", "hub"),
    ("train ROWS --from-scratch tiny -o OUT --no-check", "torch", "train"),
    ("train ROWS --from-scratch tiny -o OUT --preset cpu", "yaml", "train"),
    ("merge MODEL MODEL -o OUT", "peft", "train"),
    ("presets", "yaml", "train"),
    ("data lengths ROWS --model MODEL", "transformers", "train"),
    ("data lengths ROWS --model MODEL --histogram OUT.png", "matplotlib", "plots"),
    ("data augment ROWS --with MODEL -o OUT", "torch", "train"),
    ("runs MODEL", "plotext", "curves"),
    ("quickstart -o OUT", "torch", "export"),
]


@pytest.fixture
def named(artifacts: Path, trained: Path, dataset: Path, tmp_path: Path) -> dict[str, object]:
    (tmp_path / "schema.json").write_text("{}")
    (tmp_path / "report.json").write_text('{"kind": "artifacts"}')
    return {
        "ONNX": artifacts / "onnx-int8",
        "CTRANSLATE2": artifacts / "ctranslate2-int8",
        "GGUF": artifacts / "gguf-q8_0",
        "TORCHSCRIPT": artifacts / "torchscript-int8",
        "MODEL": trained,
        "ROWS": dataset / "dev.jsonl",
        "REPORT": tmp_path / "report.json",
        "SCHEMA": tmp_path / "schema.json",
        "OUT": tmp_path / "out",
        "OUT.html": tmp_path / "out.html",
        "OUT.png": tmp_path / "out.png",
    }


@pytest.mark.parametrize(("line", "library", "extra"), CASES)
def test_one_line_names_library_and_extra(
    hooked: Path, named: dict[str, object], line: str, library: str, extra: str
) -> None:
    ended = run(hooked, library, *(named.get(word, word) for word in line.split()))
    assert ended.returncode in (1, 2), ended.stderr
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert library in lines[0]
    assert install_command(extra) in lines[0]
    assert "unexpected" not in lines[0]
    assert not Path(str(named["OUT"])).exists()


def test_every_command_that_needs_a_library_is_covered() -> None:
    covered = {case[0].split()[0] for case in CASES}
    # These read files of the base installation only.
    light = {"info", "version", "check"}
    assert {words[0] for words in COMMANDS if words} - light == covered


def test_what_needs_few_libraries_runs_without_the_others(
    hooked: Path, artifacts: Path, trained: Path, dataset: Path
) -> None:
    """`edge runs` needs plotext only; `edge info` nothing; an app its engine."""
    others = set(EXTRAS_OF) - {"plotext"}
    shown = run(hooked, ",".join(others), "runs", trained)
    assert shown.returncode == 0, shown.stderr
    assert "loss" in shown.stdout
    shown = run(hooked, ",".join(EXTRAS_OF), "info", artifacts / "gguf-q8_0")
    assert shown.returncode == 0, shown.stderr
    others = set(EXTRAS_OF) - {"onnxruntime"}
    answered = run(hooked, ",".join(others), "run", artifacts / "onnx-int8", "who um who?")
    assert answered.returncode == 0, answered.stderr


def test_all_formats_are_those_that_are_installed(
    hooked: Path, trained: Path, tmp_path: Path
) -> None:
    ended = run(
        hooked, "llama_cpp,ctranslate2", "export", trained, "-f", "all", "-o", tmp_path / "out"
    )
    assert ended.returncode == 0, ended.stderr
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {"onnx-int8", "torchscript-int8"}
    for extra in ("export-gguf", "export-ctranslate2"):
        assert install_command(extra) in ended.stdout


def test_check_names_all_that_is_missing(hooked: Path, dataset: Path) -> None:
    ended = run(hooked, "datasets,accelerate", "check", dataset, "--from-scratch", "tiny")
    assert ended.returncode == 2
    assert "datasets, accelerate not installed" in " ".join(ended.stdout.split())
