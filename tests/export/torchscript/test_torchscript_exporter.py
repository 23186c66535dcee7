"""The TorchScript exporter: every kind of T5 is exact, the file needs only PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge.export.publish import Publisher, Target
from edge.export.reference import TorchReference
from edge.export.source import SourceModel
from edge.export.tolerance import EXACT
from edge.export.torchscript.exporter import MODEL_NAME, TorchScriptExporter
from edge.export.torchscript.layers import RowInt8Linear
from edge.runtime.options import GenerationOptions

KINDS: dict[str, dict[str, Any]] = {
    "tied and scaled": {},
    "untied, written by transformers 4": {"tied": False, "written_by": 4},
    "untied, written by transformers 5": {"tied": False},
    "unequal depth": {"num_layers": 1, "num_decoder_layers": 3},
    "heads narrower than the model": {"num_heads": 3, "d_kv": 8},
    "relu": {"feed_forward_proj": "relu"},
    "gated silu": {"feed_forward_proj": "gated-silu"},
    "exact gelu": {"feed_forward_proj": "gelu"},
    "other buckets": {
        "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 20,
    },
}
# Runs the file with PyTorch alone.
PLAIN = """
import json, sys, torch
model = torch.jit.load(sys.argv[1])
rows = json.loads(sys.argv[2])
longest = max(map(len, rows))
ids = torch.tensor([row + [model.pad] * (longest - len(row)) for row in rows])
mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
tokens, sums, lengths, finished = model.greedy(ids, mask, 9, 0)
logits = model(ids, mask, torch.full((len(rows), 1), model.start))
assert logits.shape[:2] == (len(rows), 1)
assert "edge" not in sys.modules and "transformers" not in sys.modules
print(json.dumps([row[:n] for row, n in zip(tokens.tolist(), lengths.tolist())]))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_t5_is_exact(
    kind: str, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    source = SourceModel.open(random_model(**KINDS[kind]))
    exported = Publisher(source).publish(Target("torchscript", "float32"), tmp_path / "artifact")
    assert exported.parity.greedy_identical == exported.parity.inputs
    assert exported.parity.max_error < EXACT.max_error


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_the_file_runs_without_this_project(
    quantization: str, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    source = SourceModel.open(random_model(tied=False))
    TorchScriptExporter().write(source, quantization, tmp_path)
    rows = [[5, 9, 30, 31, 1], [12, 1], [1]]
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, str(tmp_path / MODEL_NAME), json.dumps(rows)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(1 <= len(row) <= 9 for row in found)
    if quantization == "float32":
        pieces = torch.jit.load(str(tmp_path / MODEL_NAME)).pieces
        reference = TorchReference(source, pieces=pieces)
        for row, tokens in zip(rows, found, strict=True):
            [expected] = reference.generate([row], GenerationOptions(max_new_tokens=9))[0]
            eos = [1] if expected.finish_reason == "eos" else []
            assert tokens == [*expected.token_ids, *eos]


def test_the_tied_embedding_is_stored_once(
    random_model: Callable[..., Path], tmp_path: Path
) -> None:
    sizes = {}
    for tied in (True, False):
        folder = tmp_path / str(tied)
        folder.mkdir()
        source = SourceModel.open(random_model(tied=tied, d_model=128))
        TorchScriptExporter().write(source, "float32", folder)
        sizes[tied] = (folder / MODEL_NAME).stat().st_size
    assert sizes[False] - sizes[True] > 0.9 * 260 * 128 * 4


def test_int8_is_smaller_and_within_its_limits(
    shared: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    source = SourceModel.open(shared / "models" / "disfl-tiny")
    exported = Publisher(source).publish(Target("torchscript", "int8"), tmp_path / "artifact")
    full = (source.folder / "model.safetensors").stat().st_size
    assert (tmp_path / "artifact" / MODEL_NAME).stat().st_size < 0.45 * full
    assert exported.parity.mean_error < 0.05
    assert not [warning for warning in recwarn if "deprecat" in str(warning.message).lower()]


def test_names_of_quantizations() -> None:
    assert TorchScriptExporter.resolve("auto") == "int8"
    assert TorchScriptExporter.resolve("none") == "float32"


def test_products_of_8_bit_rows_do_not_saturate() -> None:
    """The largest activations, and weights whose neighbors add up to the limit."""
    first = np.random.default_rng(0).integers(0, 127, (24, 512), endpoint=True)
    values = np.where(np.arange(512) % 2 == 0, first, np.roll(128 - first, 1, axis=1))
    values = np.minimum(values, 127).astype(np.int8)
    layer = RowInt8Linear(values, np.ones(24, dtype=np.float32))
    found = layer(torch.ones(3, 512)).numpy()
    np.testing.assert_allclose(found, np.broadcast_to(values.sum(axis=1), (3, 24)), rtol=1e-5)
