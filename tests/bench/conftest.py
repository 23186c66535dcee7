"""Real engines that crash, are missing or leave a mark: code that runs first in their processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

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
def commands_end() -> Iterator[None]:
    """Commands that the test starts end with it, also where it fails."""
    others = set(psutil.Process().children(recursive=True))
    yield
    for process in set(psutil.Process().children(recursive=True)) - others:
        process.kill()


@pytest.fixture
def mark_onnx(
    engines_with: Callable[[str], None], commands_end: None
) -> Callable[[Path, int], None]:
    """Create a file once an onnx artifact has answered a number of calls."""
    return lambda file, calls: engines_with(_MARKING.format(file=str(file), calls=calls))
