"""A builder of ONNX graphs that share their weights; `edge.export.onnx.files` writes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
IR_VERSION = 10
MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's contrib operators
FLOAT, INT64, INT32, BOOL = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.BOOL,
)

Dim = int | str  # a dimension's size, or its name if it is dynamic


class Weights:
    """The weights that the graphs of one artifact share; each name is stored once."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def add(self, name: str, make: Callable[[], np.ndarray]) -> None:
        """Add the weight `name`; `make` is called the first time only."""
        if name not in self._arrays:
            self._arrays[name] = np.ascontiguousarray(make())

    def array(self, name: str) -> np.ndarray:
        """The weight `name`, C-contiguous."""
        return self._arrays[name]

    @property
    def nbytes(self) -> int:
        """The size of all weights in bytes."""
        return sum(array.nbytes for array in self._arrays.values())


class Graph:
    """A graph under construction; values are referred to by name, as in ONNX.

    Attributes:
        name: the graph's name, also a prefix for values in the body of a control-flow operator.
        weight_names: the shared weights that the graph uses, in order of first use.
    """

    def __init__(self, name: str, weights: Weights, parent: Graph | None = None) -> None:
        self.name = name
        self._weights = weights
        self._parent = parent
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self.weight_names: dict[str, None] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def input(self, name: str, dtype: int, shape: Sequence[Dim]) -> str:
        """Add an input, and return its name."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: int, shape: Sequence[Dim]) -> None:
        """Make `value` an output with the name `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, and return its name; "" is an omitted optional input."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(
        self,
        kind: str,
        *inputs: str,
        outputs: int,
        unused: Collection[int] = (),
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Add a node with several outputs, and return their names; `unused` ones are omitted."""
        self._count += 1
        # A body sees the values of the enclosing graph, so its names must differ from those.
        scope = f"{self.name}/" if self._parent else ""
        names = [
            "" if i in unused else f"{scope}{kind}_{self._count}" + (f"_{i}" if i else "")
            for i in range(outputs)
        ]
        self._nodes.append(
            helper.make_node(kind, list(inputs), names, name=names[0], domain=domain, **attributes)
        )
        return names

    def weight(self, name: str, make: Callable[[], np.ndarray]) -> str:
        """Add a weight, stored once for this graph and all bodies in it."""
        if self._parent:
            return self._parent.weight(name, make)
        self._weights.add(name, make)
        self.weight_names[name] = None
        return name

    def constant(self, value: int | float | Sequence[int], dtype: type = np.int64) -> str:
        """Add a small constant, stored once per value for this graph and all bodies in it."""
        if self._parent:
            return self._parent.constant(value, dtype)
        array: np.ndarray = np.array(value, dtype=dtype)
        name = f"const_{array.dtype}_{'_'.join(map(str, array.ravel().tolist()))}_{array.ndim}"
        self._constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def body(self, name: str) -> Graph:
        """The body of a control-flow operator in this graph, whose values it may use."""
        return Graph(name, self._weights, self)

    def proto(self, weights: Sequence[TensorProto] = ()) -> onnx.GraphProto:
        """The graph as a GraphProto; the body of an operator has no weights."""
        return helper.make_graph(
            self._nodes,
            self.name,
            self._inputs,
            self._outputs,
            initializer=[*self._constants.values(), *weights],
        )

    def model(self, weights: Sequence[TensorProto]) -> onnx.ModelProto:
        """The graph as a ModelProto, with the given initializers."""
        return helper.make_model(
            self.proto(weights),
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
            producer_name="edge-t5",
        )
