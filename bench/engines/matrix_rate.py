"""Matrix rate of this machine: multiply-adds per second of its best int8 matrix product.

Several libraries multiply the same large matrices, and the fastest counts: a limit must not depend
on the engine that is compared with it. The module is also a program, so that the libraries' thread
pools end with it:

    python -m edge.bench.engines.matrix_rate THREADS

It prints one line of JSON: multiply-adds per second by the product's name.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.bench.timing.line_process import process_environment

# Rows, depth and columns: too large for overhead to matter, far from the limits of memory.
_SIZE = (1024, 2048, 2048)
_REPEATS = 9
_MAX_SECONDS = 3.0  # for each product; a slow one is not the fastest
_TIMEOUT = 120.0

Product = Callable[[], object]


@dataclass(frozen=True)
class MatrixRate:
    """The fastest int8 matrix product.

    Attributes:
        name: library and operator; "" if none could be measured.
        macs_per_second: its multiply-adds per second; 0 if none could be measured.
        products: the same of every product that ran.
    """

    name: str = ""
    macs_per_second: float = 0.0
    products: dict[str, float] = field(default_factory=dict)

    def merged(self, other: MatrixRate) -> MatrixRate:
        """The better of two measurements of each product."""
        names = self.products | other.products
        return best_of(
            {name: max(one.products.get(name, 0.0) for one in (self, other)) for name in names}
        )


def best_of(products: Mapping[str, float]) -> MatrixRate:
    """The rate of the fastest of `products`, multiply-adds per second by name."""
    if not products:
        return MatrixRate()
    name = max(products, key=lambda one: products[one])
    return MatrixRate(name, products[name], dict(products))


def measure_matrix_rate(threads: int) -> MatrixRate:
    """Measure every product with `threads` threads, in a separate process.

    Products whose library is not installed are left out.
    """
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "edge.bench.engines.matrix_rate", str(threads)],
            env=process_environment(threads),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=True,
            start_new_session=True,  # the parent alone handles Ctrl-C
        )
        return best_of(json.loads(ended.stdout.splitlines()[-1]))
    except (subprocess.SubprocessError, ValueError, IndexError):
        return MatrixRate()


def time_products(
    threads: int, *, size: tuple[int, int, int] = _SIZE, repeats: int = _REPEATS
) -> dict[str, float]:
    """Multiply-adds per second of every product that this environment has.

    Args:
        threads: that each product computes with.
        size: rows, depth and columns of the product.
        repeats: products of each kind; the median counts.
    """
    rates = {}
    for source in (_onnxruntime_products, _torch_products):
        try:
            for name, product in source(threads, size):
                rates[name] = _rate(product, size, repeats)
        except ImportError:
            continue
    return rates


def _rate(product: Product, size: tuple[int, int, int], repeats: int) -> float:
    product()  # warm-up: packs weights, starts threads
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < _MAX_SECONDS:
        started = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - started)
    rows, depth, columns = size
    return float(rows * depth * columns / np.median(seconds))


def _onnxruntime_products(
    threads: int, size: tuple[int, int, int]
) -> Iterator[tuple[str, Product]]:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rows, depth, columns = size
    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (depth, columns), np.int8)
    integers = random.integers(0, 256, (rows, depth), np.uint8)
    floats = random.standard_normal((rows, depth), np.float32)
    # MatMulNBits: values [columns, blocks, block] around 128, and a scale for each block.
    block = 128
    blocks = (weights.T.reshape(columns, depth // block, block) + np.int16(128)).astype(np.uint8)
    scales = np.full(columns * depth // block, 0.01, np.float32)
    scale, middle = np.full(1, 0.01, np.float32), np.array(128, np.uint8)
    dynamic = {"domain": "com.microsoft"}
    bits = {**dynamic, "K": depth, "N": columns, "bits": 8, "block_size": block}
    products: dict[str, tuple[np.ndarray, dict[str, np.ndarray], int, dict[str, Any]]] = {
        "MatMulInteger": (integers, {"b": weights, "zero": middle}, TensorProto.INT32, {}),
        "DynamicQuantizeMatMul": (
            floats, {"b": weights, "scale": scale}, TensorProto.FLOAT, dynamic
        ),
        "MatMulNBits": (
            floats,
            {"b": blocks, "scales": scales},
            TensorProto.FLOAT,
            {**bits, "accuracy_level": 4},
        ),
    }  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    for operator, (x, constants, out_type, attributes) in products.items():
        node = helper.make_node(operator, ["a", *constants], ["y"], **attributes)
        graph = helper.make_graph(
            [node],
            operator,
            [helper.make_tensor_value_info("a", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
            [helper.make_tensor_value_info("y", out_type, (rows, columns))],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception:  # this build lacks the operator
            continue
        yield f"onnxruntime {operator}", _session_product(session, x)


def _session_product(session: object, x: np.ndarray) -> Product:
    return lambda: session.run(None, {"a": x})  # type: ignore[attr-defined]


def _module_product(module: Callable[[object], object], x: object) -> Product:
    return lambda: module(x)


def _torch_products(threads: int, size: tuple[int, int, int]) -> Iterator[tuple[str, Product]]:
    import torch

    torch.set_num_threads(threads)
    rows, depth, columns = size
    x = torch.randn(rows, depth, generator=torch.Generator().manual_seed(0))
    linear = torch.nn.Sequential(torch.nn.Linear(depth, columns, bias=False)).eval()
    # torch._int_mm is left out: without AMX it is a plain loop that takes half a minute.
    for engine in {"onednn", "x86"}.intersection(torch.backends.quantized.supported_engines):
        torch.backends.quantized.engine = engine
        quantized = torch.ao.quantization.quantize_dynamic(
            linear, {torch.nn.Linear}, dtype=torch.qint8
        )
        with torch.inference_mode():
            yield f"torch dynamic int8 linear ({engine})", _module_product(quantized, x)


if __name__ == "__main__":
    print(json.dumps(time_products(int(sys.argv[1]))))
