"""model.onnx in Node.js: ONNX Runtime alone gives the same answers as `edge.runtime`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge.runtime import load
from node import installed
from samples import TEXTS

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("run_onnx.cjs")
PACKAGE, VERSION = "onnxruntime-node", "1.30.0"
# max_new_tokens and min_new_tokens: ends with eos, cut off, eos delayed, one token.
LIMITS = ((40, 0), (5, 0), (24, 20), (1, 0))


@pytest.fixture(scope="session")
def node_modules() -> Path:
    return installed(PACKAGE, VERSION)


@pytest.mark.parametrize("quantization", ["int8", "float32"])
def test_node_gives_what_the_runtime_gives(
    quantization: str, node_modules: Path, artifacts: Path, tmp_path: Path
) -> None:
    artifact = artifacts / f"onnx-{quantization}"
    shutil.copy(artifact / "model.onnx", tmp_path)
    with load(artifact, threads=1) as model:
        several, _ = model.encode(TEXTS)
        assert len({len(row) for row in several}) == len(several)
        calls = [(rows, *limits) for rows in (several, several[2:3]) for limits in LIMITS]
        shape = model.artifact.manifest.architecture
        expected = [
            model.generate_tokens(rows, max_new_tokens=longest, min_new_tokens=shortest)
            for rows, longest, shortest in calls
        ]

    request = [
        {"rows": rows, "maxNewTokens": longest, "minNewTokens": shortest}
        for rows, longest, shortest in calls
    ]
    done = subprocess.run(
        ["node", str(SCRIPT), "model.onnx"],
        input=json.dumps(request),
        cwd=tmp_path,
        env={**os.environ, "NODE_PATH": str(node_modules)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)

    assert len(results) == len(calls)
    for result, generations, (_, longest, shortest) in zip(results, expected, calls, strict=True):
        assert isinstance(generations, list)
        steps = max(row["length"] for row in result)
        assert shortest <= steps <= longest
        for row, generation in zip(result, generations, strict=True):
            ended = generation.finish_reason == "eos"
            ids = [*generation.token_ids, *[shape.eos_token_id] * ended]
            assert row["tokens"] == ids + [shape.pad_token_id] * (steps - len(ids))
            assert row["length"] == len(ids) >= shortest
            assert row["finished"] is ended
            assert row["logProb"] == pytest.approx(generation.score * len(ids), abs=1e-3)


def test_the_documented_function_is_the_one_that_runs() -> None:
    page = (ROOT / "docs" / "other-languages.md").read_text(encoding="utf-8")
    shown = re.search(r"^async function generate.*?^}$", page, re.MULTILINE | re.DOTALL)
    assert shown
    assert shown[0] in SCRIPT.read_text(encoding="utf-8")
