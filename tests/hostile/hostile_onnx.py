"""Sweeps over ONNX graphs: attributes, initializers, names, types and shapes, one of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hostile_values import FLOATS, INTEGERS, STRINGS, Mutant

Edit = Callable[[Any], None]
_INT64 = [value for value in INTEGERS if -(2**63) <= value < 2**63]
_INT32 = [value for value in INTEGERS if -(2**31) <= value < 2**31]
_OPERATORS = ("Loop", "If", "Identity", "Reshape", "Expand", "Tile", "ConstantOfShape", "Range")


def onnx_mutants(path: Path) -> Iterator[Mutant]:
    """Every field of a graph and its subgraphs."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    for name, edit in _edits(model):
        yield Mutant(f"{path.name} {name}", path.name, _Edited(path, edit))


class _Edited:
    def __init__(self, path: Path, edit: Edit) -> None:
        self.path, self.edit = path, edit

    def __call__(self) -> bytes:
        import onnx

        model = onnx.load(str(self.path), load_external_data=False)
        self.edit(model)
        return bytes(model.SerializeToString())


def _graphs(model: Any) -> list[Any]:
    """The graph and all subgraphs, in a fixed order."""
    found, pending = [], [model.graph]
    while pending:
        graph = pending.pop()
        found.append(graph)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
    return found


def _edits(model: Any) -> Iterator[tuple[str, Edit]]:
    yield from _numbers("ir_version", _INT64, lambda m, v: setattr(m, "ir_version", v))
    for index in range(len(model.opset_import)):
        yield from _numbers(
            f"opset {index}", _INT64, lambda m, v, i=index: setattr(m.opset_import[i], "version", v)
        )
    seen: set[str] = set()
    for place, graph in enumerate(_graphs(model)):
        for index, node in enumerate(graph.node):
            for name, edit in _node_edits(place, index, node):
                if name not in seen:
                    seen.add(name)
                    yield name, edit
        for index, tensor in enumerate(graph.initializer):
            kind = f"graph {place} initializer of type {tensor.data_type} rank {len(tensor.dims)}"
            if (small := tensor.ByteSize() < 100) or kind not in seen:
                seen.add(kind)
                label = f"graph {place} initializer {index}"
                yield from _tensor_edits(
                    label, lambda m, p=place, i=index: _graphs(m)[p].initializer[i], tensor, small
                )
        for side in ("input", "output"):
            for index in range(len(getattr(graph, side))):
                yield from _value_edits(place, side, index, getattr(graph, side)[index])


def _numbers(
    name: str, values: Any, change: Callable[[Any, Any], None]
) -> Iterator[tuple[str, Edit]]:
    for index, value in enumerate(values):
        yield f"{name} #{index}", lambda model, v=value: change(model, v)


def _node_edits(place: int, index: int, node: Any) -> Iterator[tuple[str, Edit]]:
    def at(model: Any) -> Any:
        return _graphs(model)[place].node[index]

    kind = f"graph {place} {node.op_type}"
    for position, attribute in enumerate(node.attribute):
        name = f"{kind}.{attribute.name}"

        def get(model: Any, position: int = position) -> Any:
            return at(model).attribute[position]

        if attribute.type == 1:
            yield from _numbers(name, FLOATS, lambda m, v, g=get: setattr(g(m), "f", v))
        elif attribute.type == 2:
            yield from _numbers(name, _INT64, lambda m, v, g=get: setattr(g(m), "i", v))
        elif attribute.type == 3:
            yield from _numbers(name, STRINGS, lambda m, v, g=get: setattr(g(m), "s", v))
        elif attribute.type == 4:
            yield from _tensor_edits(name, lambda m, g=get: g(m).t, attribute.t, True)
        elif attribute.type == 7:
            yield from _numbers(name, _INT64, lambda m, v, g=get: g(m).ints.__setitem__(0, v))
            yield f"{name} many", lambda m, g=get: g(m).ints.extend([1] * 1000)
        yield from _numbers(
            f"{name} type", range(0, 15), lambda m, v, g=get: setattr(g(m), "type", v)
        )
        yield f"{name} removed", lambda m, p=position: at(m).attribute.__delitem__(p)
    for operator in _OPERATORS:
        yield f"{kind} as {operator}", lambda m, o=operator: setattr(at(m), "op_type", o)
    for position in range(len(node.input)):
        name = f"{kind} input {position}"
        for text in ("", "missing", node.output[0]):
            yield (
                f"{name} {'itself' if text == node.output[0] else text or 'empty'}",
                lambda m, t=text, p=position: at(m).input.__setitem__(p, t),
            )
        yield (
            f"{name} other",
            lambda m, p=position: at(m).input.__setitem__(
                p, _graphs(m)[place].node[max(0, index - 1)].output[0]
            ),
        )
        yield f"{name} ids", lambda m, p=position: at(m).input.__setitem__(p, "input_ids")
    yield f"{kind} output missing", lambda m: at(m).output.__setitem__(0, "other")
    yield f"{kind} domain", lambda m: setattr(at(m), "domain", "evil.domain")
    yield f"{kind} removed", lambda m: _graphs(m)[place].node.__delitem__(index)


def _tensor_edits(
    name: str, get: Callable[[Any], Any], tensor: Any, values: bool
) -> Iterator[tuple[str, Edit]]:
    for axis in range(len(tensor.dims)):
        yield from _numbers(
            f"{name} dim {axis}", _INT64, lambda m, v, a=axis: get(m).dims.__setitem__(a, v)
        )
    yield f"{name} rank +1", lambda m: get(m).dims.append(1)
    yield f"{name} rank +1 zero", lambda m: get(m).dims.append(0)
    if tensor.dims:
        yield f"{name} rank -1", lambda m: get(m).dims.pop()
    yield from _numbers(f"{name} type", range(0, 27), lambda m, v: setattr(get(m), "data_type", v))
    yield f"{name} no data", lambda m: get(m).ClearField("raw_data")
    for location in ("/etc/passwd", "../x", "tokenizer.json", "/dev/zero"):
        yield f"{name} external {location}", lambda m, to=location: _external(get(m), to)
    if values and tensor.raw_data:
        size = {7: 8, 6: 4, 1: 4}.get(tensor.data_type, 1)
        for index, value in enumerate(INTEGERS[:-1]):
            new = (value % 2**64).to_bytes(8, "little")[:size]
            yield (
                f"{name} value #{index}",
                lambda m, n=new: setattr(get(m), "raw_data", n + get(m).raw_data[len(n) :]),
            )


def _external(tensor: Any, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in (("location", location), ("offset", "0"), ("length", "64")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def _value_edits(place: int, side: str, index: int, value: Any) -> Iterator[tuple[str, Edit]]:
    def get(model: Any) -> Any:
        return getattr(_graphs(model)[place], side)[index]

    name = f"graph {place} {side} {index}"
    yield f"{name} renamed", lambda m: setattr(get(m), "name", "other")
    yield f"{name} removed", lambda m: getattr(_graphs(m)[place], side).__delitem__(index)
    yield f"{name} no type", lambda m: get(m).ClearField("type")
    if not value.type.HasField("tensor_type"):
        return
    yield from _numbers(
        f"{name} element type",
        range(0, 27),
        lambda m, v: setattr(get(m).type.tensor_type, "elem_type", v),
    )
    for axis in range(len(value.type.tensor_type.shape.dim)):
        yield from _numbers(
            f"{name} dim {axis}",
            _INT64,
            lambda m, v, a=axis: setattr(get(m).type.tensor_type.shape.dim[a], "dim_value", v),
        )
