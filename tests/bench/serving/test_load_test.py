"""The load test at a small size: the findings that do not depend on the load of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

pytestmark = pytest.mark.alone


def test_the_service_survives_load(artifacts: Path, tmp_path: Path) -> None:
    report = tmp_path / "load.json"
    small = ("--duration", "1.5", "--requests", "200", "--sequential", "20")
    ended = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "edge.bench.serving.load_test",
                str(artifacts / "onnx-int8"),
                *small,
            ),
            *("--json", str(report)),
        ],
        capture_output=True,
        text=True,
    )
    assert ended.returncode in (0, 3), ended.stderr
    found = {item["name"]: item for item in json.loads(report.read_text())["findings"]}
    assert len(found) == len(ended.stdout.splitlines())
    for name in (
        "half load: replies",
        "5 × capacity: replies",
        "5 × capacity: Retry-After in refusals",
        "5 × capacity: accepted p50 / p95 / max",
        "a request after 5 × capacity",
        "50 clients that hang up: replies",
        "a request after clients that hang up",
        "SIGTERM under load: accepted and lost",
        "SIGTERM under load: end",
    ):
        assert found[name]["holds"] is True, found[name]
