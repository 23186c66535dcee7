"""Real engines that are slow, crash or are missing: code that runs first in their processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

_SLOW = """
import time
from edge.runtime.engines.onnx.engine import OnnxEngine
answer = OnnxEngine.generate
def slowed(self, *arguments, **options):
    time.sleep({seconds})
    return answer(self, *arguments, **options)
OnnxEngine.generate = slowed
"""
_CRASHING = """
import os
from edge.runtime.engines.gguf.engine import GgufEngine
GgufEngine.{method} = lambda *_, **__: os.abort()
"""
_MISSING = """
import sys
sys.modules["ctranslate2"] = None
"""


@pytest.fixture
def engines_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Run code at the start of every process that is started from now on."""

    def change(code: str) -> None:
        folder = tmp_path / "changed"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(code)
        before = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), before]))

    return change


@pytest.fixture
def slow_onnx(engines_with: Callable[[str], None]) -> Callable[[float], None]:
    """Delay every answer of an onnx artifact by a number of seconds."""
    return lambda seconds: engines_with(_SLOW.format(seconds=seconds))


@pytest.fixture
def crashing_gguf(engines_with: Callable[[str], None]) -> Callable[..., None]:
    """Crash gguf artifacts in `generate` or `score`; optionally hide the ctranslate2 library."""

    def change(method: str, *, missing_ctranslate2: bool = False) -> None:
        engines_with(_CRASHING.format(method=method) + _MISSING * missing_ctranslate2)

    return change


_MARKING = """
from pathlib import Path
from edge.runtime.engines.onnx.engine import OnnxEngine
answer = OnnxEngine.generate
calls = 0
def marked(self, *arguments, **options):
    global calls
    calls += 1
    if calls == {calls}:
        Path({file!r}).touch()
    return answer(self, *arguments, **options)
OnnxEngine.generate = marked
"""


@pytest.fixture
def mark_onnx(engines_with: Callable[[str], None]) -> Callable[[Path, int], None]:
    """Create a file once an onnx artifact has answered a number of calls."""
    return lambda file, calls: engines_with(_MARKING.format(file=str(file), calls=calls))
