"""A small builder of ONNX graphs whose weights lie in one file beside them, stored once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
IR_VERSION = 10
MICROSOFT = "com.microsoft"
WEIGHTS_NAME = "weights.bin"
# Page-aligned, so that ONNX Runtime can map a weight instead of reading it.
_ALIGNMENT = 4096
# Below this a tensor stays in the graph: shapes and norms are read at load anyway.
_INLINE_BYTES = 1024

Dim = int | str


class WeightFile:
    """The file of weights that the graphs of one artifact share. Each name is stored once."""

    def __init__(self, path: Path) -> None:
        self._handle = path.open("wb")
        self._name = path.name
        self._tensors: dict[str, TensorProto] = {}

    def add(self, name: str, make: Callable[[], np.ndarray]) -> TensorProto:
        """The initialiser called `name`; `make` is called the first time only."""
        if name not in self._tensors:
            array = np.ascontiguousarray(make())
            if array.nbytes < _INLINE_BYTES:
                self._tensors[name] = numpy_helper.from_array(array, name)
            else:
                self._tensors[name] = self._store(name, array)
        return self._tensors[name]

    def _store(self, name: str, array: np.ndarray) -> TensorProto:
        self._handle.write(b"\0" * (-self._handle.tell() % _ALIGNMENT))
        offset = self._handle.tell()
        self._handle.write(array.data.cast("B"))
        tensor = TensorProto(
            name=name,
            dims=array.shape,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            data_location=TensorProto.EXTERNAL,
        )
        entries = {"location": self._name, "offset": offset, "length": array.nbytes}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def close(self) -> None:
        self._handle.close()


class Graph:
    """One graph under construction. Values are named by strings, as ONNX does."""

    def __init__(self, name: str, weights: WeightFile) -> None:
        self._name = name
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def input(self, name: str, dtype: int, shape: Sequence[Dim]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: int, shape: Sequence[Dim]) -> None:
        """Make `value` an output called `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output; "" stands for an input that is left out."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(
        self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """A node with several outputs."""
        self._count += 1
        names = [f"{kind}_{self._count}" + (f"_{i}" if i else "") for i in range(outputs)]
        self._nodes.append(
            helper.make_node(kind, list(inputs), names, name=names[0], domain=domain, **attributes)
        )
        return names

    def weight(self, name: str, make: Callable[[], np.ndarray]) -> str:
        """A weight from the shared file."""
        self._initializers.setdefault(name, self._weights.add(name, make))
        return name

    def constant(self, value: int | float | Sequence[int], dtype: type = np.int64) -> str:
        """A small constant, stored in the graph once per value."""
        array: np.ndarray = np.array(value, dtype=dtype)
        name = f"const_{array.dtype}_{'_'.join(map(str, array.ravel().tolist()))}_{array.ndim}"
        self._initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def save(self, path: Path) -> None:
        graph = helper.make_graph(
            self._nodes,
            self._name,
            self._inputs,
            self._outputs,
            initializer=list(self._initializers.values()),
        )
        model = helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
            producer_name="edge-t5",
        )
        path.write_bytes(model.SerializeToString())
