"""A model with a draft head."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def drafted_model(build_once: Callable[..., Path], trained: Path, dataset: Path) -> Path:
    """A copy of the trained model with a draft head."""
    from edge.export.draft.fit import fit_draft_head

    def build(output: Path) -> None:
        shutil.copytree(trained, output)
        fit_draft_head(output, dataset)

    return build_once("draft-head-model", build)


@pytest.fixture
def copy(drafted_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(drafted_model, tmp_path / "model")
    return tmp_path / "model"
