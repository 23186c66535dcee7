"""Quantized matrix products: close to float32, row by row, and safe on older processors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edge.export.onnx.graph import FLOAT, Graph, Weights
from edge.export.onnx.layouts import quantize_columns
from edge.export.onnx.precision import (
    BlockInt4,
    BlockInt8,
    Precision,
    quantize_blocks,
)
from edge.export.onnx.row_precision import RowInt8
from edge.export.source import SourceModel

NAMES = [f"encoder.block.0.layer.0.SelfAttention.{p}.weight" for p in "qkv"]


@pytest.fixture(scope="module")
def source(random_model: Callable[..., Path]) -> SourceModel:
    # 80 is no multiple of a block of 32 weights.
    return SourceModel.open(random_model(d_model=80))


@pytest.mark.parametrize(
    ("precision", "error"), [(RowInt8, 0.02), (BlockInt8, 0.015), (BlockInt4, 0.15)]
)
def test_a_row_is_multiplied_as_if_alone(
    source: SourceModel, precision: type[Precision], error: float
) -> None:
    session = _session(precision(source), NAMES)
    rows = np.random.default_rng(0).standard_normal((6, 80)).astype(np.float32)
    expected = rows @ np.concatenate([source.tensor(name) for name in NAMES]).T

    found = session.run(["y"], {"x": rows})[0]
    assert np.abs(found - expected).mean() < error * np.abs(expected).mean()
    # Neither a neighbor with large values nor a row of zeros affects the others.
    neighbors = np.concatenate([rows, 1000 * rows[:1], np.zeros((1, 80), np.float32)])
    beside = session.run(["y"], {"x": neighbors})[0]
    np.testing.assert_allclose(beside[:6], found, atol=1e-5)
    np.testing.assert_array_equal(beside[7], 0)


@pytest.mark.parametrize("rows", [2, 5, 16, 33, 100])
def test_rows_with_a_scale_each_are_the_same_bits_in_any_batch(
    source: SourceModel, rows: int
) -> None:
    """Integer products are exact, so that batches and drafts can't decide between two tokens."""
    product = _session(RowInt8(source), NAMES[:1])
    x = np.random.default_rng(0).standard_normal((rows, 80)).astype(np.float32)
    together = product.run(["y"], {"x": x})[0]
    for start in range(0, rows, 7):
        apart = product.run(["y"], {"x": x[start : start + 1]})[0]
        np.testing.assert_array_equal(together[start : start + 1], apart)


def _session(precision: Precision, names: list[str]) -> ort.InferenceSession:
    weights = Weights()
    graph = Graph("product", weights)
    x = graph.input("x", FLOAT, ["rows", 80])
    graph.output("y", precision.linear(graph, x, names), FLOAT, ["rows", 64 * len(names)])
    model = graph.model([_tensor(weights, name) for name in graph.weight_names])
    return ort.InferenceSession(model.SerializeToString())


def _tensor(weights: Weights, name: str):  # type: ignore[no-untyped-def]
    from onnx import numpy_helper

    return numpy_helper.from_array(weights.array(name), name)


def test_weights_keep_to_within_half_a_step() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 40)).astype(np.float32)
    values, scales = quantize_columns(weight)
    np.testing.assert_allclose(values * scales, weight, atol=scales.max() / 2 * 1.001)


@pytest.mark.parametrize("width", [64, 66, 67, 512, 1000])
@pytest.mark.parametrize("count", [1, 16, 33])
def test_products_do_not_saturate_on_any_processor(width: int, count: int) -> None:
    """The largest activations, and weights whose neighbors add up to the limit."""
    from onnx import TensorProto, helper

    columns = 24
    rng = np.random.default_rng(0)
    first = rng.integers(0, 127, (width, columns), endpoint=True)
    weight = np.where(np.arange(width)[:, None] % 2 == 0, first, np.roll(128 - first, 1, axis=0))
    weight = np.minimum(weight, 127) * rng.choice([-1, 1], columns)
    steps = ("a_scale", "w_scale", "a_zero")
    node = helper.make_node(
        "MatMulIntegerToFloat", ["a", "w", *steps], ["y"], domain="com.microsoft"
    )
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["rows", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", columns])],
        [
            helper.make_tensor("w", TensorProto.INT8, weight.shape, weight.ravel()),
            helper.make_tensor("a_scale", TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor("w_scale", TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor("a_zero", TensorProto.UINT8, [], [128]),
        ],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString())
    a = rng.choice([0, 1, 255, 255, 255], (count, width)).astype(np.uint8)
    expected = (a.astype(np.int64) - 128) @ weight
    np.testing.assert_array_equal(session.run(["y"], {"a": a})[0], expected)


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_keep_weights_to_within_half_a_step(bits: int) -> None:
    weight = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    weight[2] = 0
    packed, scales = quantize_blocks(weight, 16, bits)
    assert packed.shape == (5, 3, 16 * bits // 8)
    if bits == 4:
        packed = np.stack([packed & 15, packed >> 4], axis=-1).reshape(5, 3, 16)
    values = (packed.astype(np.float32) - (1 << (bits - 1))) * scales[..., None]
    padded = np.pad(weight, ((0, 0), (0, 8))).reshape(5, 3, 16)
    # The range's shorter end may be cut by one step.
    limit = np.abs(scales)[..., None] * (0.5 if bits == 8 else 1.0)
    assert (np.abs(values - padded) <= limit * 1.001).all()
