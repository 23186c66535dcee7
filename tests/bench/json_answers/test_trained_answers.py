"""A small training on rows of JSON whose answers are JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_new_model_writes_json(shared: Path, tmp_path: Path) -> None:
    """Short commands, a fifth of the steps of docs/vocabulary.md: still nearly all answers."""
    command = [sys.executable, "-m", "edge.bench.json_answers", str(shared / "data" / "tldr")]
    command += ["--output", str(tmp_path / "out"), "--json", str(tmp_path / "figures.json")]
    command += ["--max-args", "2", "--limit", "6000", "--epochs", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    assert done.returncode in (0, 3), done.stderr[-4000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["added"].keys() == {"\n", "\t"}
    inputs = {
        split: {json.loads(line)["input"] for line in file.read_text().splitlines()}
        for split in ("train", "dev")
        if (file := tmp_path / "out" / "rows" / f"{split}.jsonl").exists()
    }
    assert len(inputs["train"]) == 6000
    assert not inputs["train"] & inputs["dev"]
    [found] = figures["artifacts"]
    assert found["rows"] == len(inputs["dev"]) > 300
    assert found["valid"] >= 0.9 * found["rows"], found["invalid"]
    assert (done.returncode == 0) == (found["valid"] >= 0.99 * found["rows"])
