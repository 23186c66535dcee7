"""Models that several tests of the service load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.runtime import load
from edge.runtime.model import Model


@pytest.fixture(scope="module")
def second(artifacts: Path) -> Iterator[Model]:
    with load(artifacts / "ctranslate2-float32") as loaded:
        yield loaded
