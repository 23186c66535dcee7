"""What is true of the TorchScript engine only; what it shares is in test_engines.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edge.export.publish import Publisher, Target
from edge.export.source import SourceModel
from edge.runtime.artifact import Artifact
from edge.runtime.engines.torchscript.engine import TorchScriptEngine
from edge.runtime.errors import ArtifactError


def test_a_wrong_program_is_one_line(random_model: Callable[..., Path], tmp_path: Path) -> None:
    source = SourceModel.open(random_model(seed=3, num_decoder_layers=1))
    Publisher(source).publish(Target("torchscript", "float32"), tmp_path / "artifact")
    artifact = Artifact.open(tmp_path / "artifact")
    other = tmp_path / "other"
    other.mkdir()
    for path in artifact.folder.iterdir():
        os.link(path, other / path.name)
    (other / "model.ts").unlink()
    torch.jit.script(torch.nn.Identity()).save(str(other / "model.ts"))
    with pytest.raises(ArtifactError, match="method encode is missing"):
        TorchScriptEngine(Artifact(other, artifact.manifest, trust_code=True))
