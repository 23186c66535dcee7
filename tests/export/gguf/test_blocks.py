"""Integers chosen by GPTQ inside llama.cpp's blocks, with the gguf library as the judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

from edge.export.gguf.blocks import LAYOUTS, block_levels, compensate_file

ROWS, WIDTH = 24, 512


def random_blocks(kind: GGMLQuantizationType, rng: np.random.Generator) -> np.ndarray:
    """Blocks of any integers, with finite scales."""
    weights, size = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (ROWS * WIDTH // weights, size), dtype=np.uint8)
    scales = 2 if kind == GGMLQuantizationType.Q4_K else 1  # d and dmin; d
    halves = rng.uniform(0.001, 0.01, (len(blocks), scales)).astype(np.float16)
    blocks[:, : 2 * scales] = halves.view(np.uint8)
    return blocks


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_integer_has_the_value_that_gguf_reads(kind: GGMLQuantizationType) -> None:
    rng = np.random.default_rng(0)
    blocks = random_blocks(kind, rng)
    levels = block_levels(blocks, kind, (ROWS, WIDTH))
    integers = rng.integers(levels.lowest, levels.highest + 1, (ROWS, WIDTH), dtype=np.uint8)
    changed = LAYOUTS[kind].with_integers(blocks, integers.reshape(len(blocks), -1))
    assert levels.bases is not None
    np.testing.assert_allclose(
        dequantize(changed, kind).reshape(ROWS, WIDTH),
        levels.bases + levels.steps * integers,
        atol=1e-5,
    )
    # The scales were not touched.
    again = block_levels(changed, kind, (ROWS, WIDTH))
    np.testing.assert_array_equal(again.steps, levels.steps)


def test_products_with_the_calibrated_inputs_change_less(tmp_path: Path) -> None:
    """Correlated inputs, as in a residual stream; nearest rounding ignores the correlation."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    inputs = rng.normal(size=(4 * WIDTH, 40)) @ rng.normal(size=(40, WIDTH))
    inputs += 0.3 * rng.normal(size=inputs.shape)
    moments = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    kind = GGMLQuantizationType.Q5_0
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "t5")
    for name in ("known", "unknown"):
        writer.add_tensor(name, quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    compensate_file(path, lambda name: (weight, moments) if name == "known" else None)

    found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    errors = {
        name: np.square((dequantize(tensor.data, kind) - weight) @ inputs.T).mean()
        for name, tensor in found.items()
    }
    assert errors["known"] < 0.6 * errors["unknown"]
    np.testing.assert_array_equal(found["unknown"].data, quantize(weight, kind))
