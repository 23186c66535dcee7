"""Lookups by name: lazy, helpful, and checked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge.runtime.engines import ENGINES
from edge.runtime.engines.base import Engine
from edge.runtime.errors import MissingExtraError, UsageError
from edge.runtime.registry import Entry, Registry

BASE = "edge.runtime.engines.base:Engine"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown format 'onx'\. Did you mean 'onnx'.*gguf"):
        ENGINES.load("onx")


def test_the_table_costs_nothing_until_used() -> None:
    code = "import sys, edge.runtime.engines; print('onnxruntime' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edge.runtime.engines.onnx.engine", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[onnx\]'"):
        ENGINES.load("onnx")


def test_an_entry_of_another_kind_is_a_fault() -> None:
    registry: Registry[Engine] = Registry("x", BASE, {"a": Entry("json:JSONDecoder", "none")})
    with pytest.raises(TypeError, match="not a subclass of Engine"):
        registry.load("a")


def test_an_import_error_of_our_own_is_not_hidden() -> None:
    registry: Registry[Engine] = Registry(
        "x", BASE, {"a": Entry("edge.runtime.no_such_module:A", "none", ("onnxruntime",))}
    )
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        registry.load("a")
