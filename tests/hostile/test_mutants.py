"""Mutated artifacts and model folders, with consistent manifests: an answer or one clear sentence.

No crash, no hang, no memory beyond twice the folder's own, no other exception than EdgeError. The
fast slice runs with `make test`, all of it with `make test-hostile`; failures and a table are in
build/hostile.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostile_runner import choose, run_mutants
from samples import FORMATS

# What is changed → how it is used, and the folder's name among the artifacts.
FOLDERS = {
    "onnx": ("onnx", "onnx-int8"),
    "ctranslate2": ("ctranslate2", "ctranslate2-int8"),
    "gguf": ("gguf", "gguf-q8_0"),
    "torchscript": ("torchscript", "torchscript-int8"),
    "manifest": ("gguf", "gguf-q8_0"),
    "tokenizer": ("gguf", "gguf-q8_0"),
    "model": ("model", ""),
}


def run(name: str, artifacts: Path, trained: Path, scratch: Path, count: int) -> None:
    use, folder_name = FOLDERS[name]
    folder = artifacts / folder_name if folder_name else trained
    mutants = choose(name, folder, scratch, count)
    report = run_mutants(name, use, folder, mutants, scratch)
    shown = "\n".join(f"{f['mutant']}: {f['outcome']}: {f['detail']}" for f in report.failures[:30])
    assert not report.failures, f"{len(report.failures)} of {len(mutants)}:\n{shown}"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_slice_of_the_mutants(name: str, artifacts: Path, trained: Path, tmp_path: Path) -> None:
    run(name, artifacts, trained, tmp_path, 200 if name in FORMATS else 50)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_all_mutants(name: str, artifacts: Path, trained: Path, tmp_path: Path) -> None:
    run(name, artifacts, trained, tmp_path, int(os.environ.get("EDGE_HOSTILE_COUNT", "0")))
