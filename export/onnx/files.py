"""Writes the graphs of one artifact so that their weights are stored once.

The main graph's file holds the weights itself and needs no other file. The other graphs find theirs
in that file, by offset: ONNX's external data may lie in any file beside a model. A protobuf holds
less than 2 GiB; a larger model has its weights in `weights.bin` for all graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edge.export.onnx.graph import Graph, Weights

WEIGHTS_NAME = "weights.bin"
_EMBEDDED_BYTES = (2 << 30) - (64 << 20)  # protobuf's limit, less room for the nodes
# Page-aligned, so that ONNX Runtime can map a weight instead of reading it.
_ALIGNMENT = 4096
# Below this a tensor stays in its graph: norms and scales are read at load anyway.
_INLINE_BYTES = 1024
# Field numbers of onnx.proto, and protobuf's wire type of strings, bytes and messages.
_GRAPH, _INITIALIZER, _NAME, _RAW_DATA = 7, 5, 8, 9
_LENGTH_DELIMITED = 2

# Where a weight lies: (file, offset, length).
_Places = dict[str, tuple[str, int, int]]


def write_graphs(
    folder: Path,
    weights: Weights,
    main: tuple[str, Graph],
    others: Mapping[str, Graph],
    *,
    data_name: str = WEIGHTS_NAME,
) -> None:
    """Write the main graph and the others under their file names into `folder`.

    What a protobuf can't hold goes into a file called `data_name`.
    """
    name, graph = main
    if weights.nbytes < _EMBEDDED_BYTES:
        tensors = [_embedded(key, weights.array(key)) for key in graph.weight_names]
        data = graph.model(tensors).SerializeToString()
        (folder / name).write_bytes(data)
        places = {
            key: (name, offset, length)
            for key, (offset, length) in raw_data_places(memoryview(data)).items()
        }
    else:
        places = {}
        others = {name: graph, **others}
    everything = dict.fromkeys(key for one in others.values() for key in one.weight_names)
    missing = [key for key in everything if key not in places and not _is_small(weights, key)]
    if missing:
        places |= _write_weights(folder / data_name, weights, missing)
    for other, one in others.items():
        tensors = [
            _embedded(key, weights.array(key))
            if _is_small(weights, key)
            else _reference(key, weights.array(key), places[key])
            for key in one.weight_names
        ]
        (folder / other).write_bytes(one.model(tensors).SerializeToString())


def _is_small(weights: Weights, name: str) -> bool:
    return weights.array(name).nbytes < _INLINE_BYTES


def _embedded(name: str, array: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(array, name)


def _reference(name: str, array: np.ndarray, place: tuple[str, int, int]) -> TensorProto:
    location, offset, length = place
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


def _write_weights(path: Path, weights: Weights, names: list[str]) -> _Places:
    places: _Places = {}
    with path.open("wb") as handle:
        for name in names:
            handle.write(b"\0" * (-handle.tell() % _ALIGNMENT))
            array = weights.array(name)
            places[name] = (path.name, handle.tell(), array.nbytes)
            handle.write(array.data.cast("B"))
    return places


def raw_data_places(model: memoryview) -> dict[str, tuple[int, int]]:
    """Offset and length of the raw data of each initializer in a serialized ModelProto.

    Source: onnx.proto and https://protobuf.dev/programming-guides/encoding/.
    """
    places = {}
    for graph_field, graph_start, graph_end in _fields(model, 0, len(model)):
        if graph_field != _GRAPH:
            continue
        for field, start, end in _fields(model, graph_start, graph_end):
            if field == _INITIALIZER:
                parts = {key: (at, to) for key, at, to in _fields(model, start, end)}
                if _RAW_DATA in parts:
                    name_start, name_end = parts[_NAME]
                    at, to = parts[_RAW_DATA]
                    places[bytes(model[name_start:name_end]).decode()] = (at, to - at)
    return places


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
