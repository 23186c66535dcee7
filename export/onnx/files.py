"""Files of the graphs of one artifact, with their weights stored once.

The main graph's file contains the weights and needs no other file. The other graphs refer to the
weights in that file by offset, because ONNX's external data may be in any file beside a model. A
protobuf is limited to 2 GiB; larger models have the weights of all graphs in `weights.bin`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edge.export.onnx.graph import Graph, Weights

WEIGHTS_NAME = "weights.bin"
_EMBEDDED_BYTES = (2 << 30) - (64 << 20)  # protobuf's limit, less a margin for the nodes
# Page-aligned, so that ONNX Runtime can memory-map a weight.
_ALIGNMENT = 4096
# Smaller tensors, such as norms and scales, are embedded in each graph.
_INLINE_BYTES = 1024
# Field numbers of onnx.proto, and protobuf's wire type of strings, bytes and messages.
_GRAPH, _INITIALIZER, _NAME, _RAW_DATA = 7, 5, 8, 9
_LENGTH_DELIMITED = 2

# Weight → (file, offset, length).
_Locations = dict[str, tuple[str, int, int]]


def write_graphs(
    folder: Path,
    weights: Weights,
    main: tuple[str, Graph],
    others: Mapping[str, Graph],
    *,
    data_name: str = WEIGHTS_NAME,
) -> None:
    """Write the graphs into `folder`.

    Args:
        folder: where the files go.
        weights: the weights of all graphs.
        main: file name and graph; its file contains its weights, if a protobuf can hold them.
        others: file name → graph.
        data_name: the file for weights that the main graph's file does not contain.
    """
    name, graph = main
    if weights.nbytes < _EMBEDDED_BYTES:
        tensors = [_embedded(key, weights.array(key)) for key in graph.weight_names]
        data = graph.model(tensors).SerializeToString()
        (folder / name).write_bytes(data)
        locations = {
            key: (name, offset, length)
            for key, (offset, length) in raw_data_locations(memoryview(data)).items()
        }
    else:
        locations = {}
        others = {name: graph, **others}
    used = dict.fromkeys(key for graph in others.values() for key in graph.weight_names)
    missing = [key for key in used if key not in locations and not _is_small(weights, key)]
    if missing:
        locations |= _write_weights(folder / data_name, weights, missing)
    for name, graph in others.items():
        tensors = [
            _embedded(key, weights.array(key))
            if _is_small(weights, key)
            else _reference(key, weights.array(key), locations[key])
            for key in graph.weight_names
        ]
        (folder / name).write_bytes(graph.model(tensors).SerializeToString())


def _is_small(weights: Weights, name: str) -> bool:
    return weights.array(name).nbytes < _INLINE_BYTES


def _embedded(name: str, array: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(array, name)


def _reference(name: str, array: np.ndarray, where: tuple[str, int, int]) -> TensorProto:
    location, offset, length = where
    assert length == array.nbytes, name
    tensor = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    entries = {"location": location, "offset": offset, "length": length}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _write_weights(path: Path, weights: Weights, names: list[str]) -> _Locations:
    locations: _Locations = {}
    with path.open("wb") as handle:
        for name in names:
            handle.write(b"\0" * (-handle.tell() % _ALIGNMENT))
            array = weights.array(name)
            locations[name] = (path.name, handle.tell(), array.nbytes)
            handle.write(array.data.cast("B"))
    return locations


def raw_data_locations(model: memoryview) -> dict[str, tuple[int, int]]:
    """Offset and length of the raw data of each initializer in a serialized ModelProto.

    Source: onnx.proto and https://protobuf.dev/programming-guides/encoding/.
    """
    locations = {}
    for graph_field, graph_start, graph_end in _fields(model, 0, len(model)):
        if graph_field != _GRAPH:
            continue
        for field, start, end in _fields(model, graph_start, graph_end):
            if field == _INITIALIZER:
                fields = {key: (at, to) for key, at, to in _fields(model, start, end)}
                if _RAW_DATA in fields:
                    name_start, name_end = fields[_NAME]
                    at, to = fields[_RAW_DATA]
                    locations[bytes(model[name_start:name_end]).decode()] = (at, to - at)
    return locations


def _fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each length-delimited field of a message."""
    while start < end:
        key, start = _varint(data, start)
        number, wire = key >> 3, key & 7
        value, after = _varint(data, start)
        if wire == _LENGTH_DELIMITED:
            yield number, after, after + value
            start = after + value
        elif wire == 0:
            start = after
        else:
            start += {1: 8, 5: 4}[wire]


def _varint(data: memoryview, start: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, start
