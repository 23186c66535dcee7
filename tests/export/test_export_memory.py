"""Peak memory of `edge export`, in a process of its own, against the size of the weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge.bench.engines.shapes import shape_of, write_model

LIMIT = 2.5  # times the float32 weights

MEASURED = """
import json, resource, sys
from edge.export import export

model, output, format, quantization = sys.argv[1:]
export(model, output, format, quantization, max_error=99, mean_error=99)  # random weights
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export-memory") / "flan-t5-base"
    write_model(shape_of("flan-t5-base"), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "quantization"),
    [
        ("onnx", "int8"),
        ("onnx", "int4"),
        ("gguf", "q4_k_m"),
        ("ctranslate2", "int8"),
        ("torchscript", "int8"),
    ],
)
def test_memory_of_the_base_shape(
    base: Path, tmp_path: Path, format: str, quantization: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, base, tmp_path / "artifact", format, quantization],
        check=True,
        capture_output=True,
        text=True,
    )
    weights = (base / "model.safetensors").stat().st_size
    assert json.loads(done.stdout) <= LIMIT * weights
