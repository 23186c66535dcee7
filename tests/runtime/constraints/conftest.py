"""An untrained model in the formats that step, for constrained decoding."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("llguidance")

from edge.export.publish import ExportOptions, Publisher, Target
from edge.export.source import SourceModel
from edge.runtime import Model, load

STEPPING = {"onnx": "float32", "torchscript": "float32", "gguf": "f32"}


@pytest.fixture(scope="session")
def untrained(
    random_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The artifact of an untrained model in a format, written once."""
    source = SourceModel.open(random_model(seed=3, num_decoder_layers=1))

    @functools.cache
    def write(name: str) -> Path:
        folder = tmp_path_factory.mktemp("untrained") / name
        options = ExportOptions(max_error=1e9, mean_error=1e9)  # near ties are no matter here
        Publisher(source, options).publish(Target(name, STEPPING.get(name, "float32")), folder)
        return folder

    return write


@pytest.fixture(scope="module", params=STEPPING)
def model(request: pytest.FixtureRequest, untrained: Callable[[str], Path]) -> Iterator[Model]:
    with load(untrained(request.param)) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def onnx(untrained: Callable[[str], Path]) -> Iterator[Model]:
    with load(untrained("onnx")) as loaded:
        yield loaded
