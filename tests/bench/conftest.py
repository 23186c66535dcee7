"""Real engines made to misbehave: what their processes load first changes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

_SLOW = """
import time
from edge.runtime.engines.onnx import OnnxEngine
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
    """Change the engines of every process started from now on by code that runs in it first."""

    def change(code: str) -> None:
        folder = tmp_path / "changed"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(code)
        before = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), before]))

    return change


@pytest.fixture
def slow_onnx(engines_with: Callable[[str], None]) -> Callable[[float], None]:
    """Every answer of an onnx artifact waits for so many seconds first."""
    return lambda seconds: engines_with(_SLOW.format(seconds=seconds))


@pytest.fixture
def crashing_gguf(engines_with: Callable[[str], None]) -> Callable[..., None]:
    """gguf artifacts crash when they `generate` or `score`; with missing_ctranslate2, that library
    is not there either."""

    def change(method: str, *, missing_ctranslate2: bool = False) -> None:
        engines_with(_CRASHING.format(method=method) + _MISSING * missing_ctranslate2)

    return change
