"""Fixtures of the interoperability tests, which need other environments: `make interop`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def baselines() -> Callable[..., Any]:
    """Run a script of this folder with the Python of Optimum's environment; returns its JSON."""
    default = ROOT / ".venv-baselines" / "bin" / "python"
    python = os.environ.get("EDGE_BASELINES_PYTHON", str(default))
    if not Path(python).exists():
        pytest.fail(
            f"no {python}: make baselines creates it, or set EDGE_BASELINES_PYTHON", pytrace=False
        )

    def call(script: str, *arguments: object) -> Any:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [python, str(Path(__file__).with_name(script)), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=600,
            env={**kept, "HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return call


@pytest.fixture(scope="session")
def export_hub(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export a model folder in the hub layout by the command line."""
    from edge.cli.main import main

    def export(model: Path, quantization: str) -> Path:
        output = tmp_path_factory.mktemp("hub") / "model"
        command = ["export", str(model), "--format", "onnx", "--layout", "hub"]
        # Random weights are sensitive to rounding: the wide model in torch's float32 is 2e-3 from
        # float64. The limits are therefore wide; the tests compare tokens.
        command += ["--quantize", quantization, "--output", str(output)]
        command += ["--mean-error", "9", "--max-error", "1e-2" if quantization == "none" else "99"]
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert not ended.value.code
        return output

    return export
