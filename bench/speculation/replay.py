"""Drafts of a trained model replayed on a larger shape with random weights.

Random weights copy nothing, so that their drafts would all be wrong. Here the graph that drafts
from the input (`speculative.onnx`) gets one more input, `script`: each token that it takes for
greedy search's choice comes from there. Encoder, decoder steps, logits and the choice itself are
computed as ever, and drafting, checking and the draft's width follow the script's tokens: with a
trained model's source and answer, the steps are that model's, at the larger shape's cost.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.runtime.errors import EdgeError

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

_WEIGHTS, _GRAPH = "model.onnx", "speculative.onnx"
_SCRIPT = "script"


class Replay:
    """The two searches of one onnx artifact: plain greedy, and drafts that follow a script."""

    def __init__(self, folder: Path, threads: int, eos: int) -> None:
        """Open both graphs of the artifact in `folder`.

        Raises:
            EdgeError: the graph is not built as this module expects.
        """
        self._eos = eos
        self._plain = _session(folder / _WEIGHTS, threads)
        with _scripted(folder) as path:
            self._drafted = _session(path, threads)

    def plain(self, source: Sequence[int], length: int) -> int:
        """Greedy search of exactly `length` tokens; returns the steps, one each."""
        feeds = _feeds(source, longest=length, shortest=length)
        tokens = self._plain.run(["tokens"], feeds)[0]
        assert tokens.shape[1] == length, tokens.shape
        return length

    def drafted(self, source: Sequence[int], answer: Sequence[int], draft_tokens: int) -> int:
        """The search with drafts, made to give `answer`; returns the decoder steps taken.

        Raises:
            EdgeError: the graph gave another answer.
        """
        feeds = _feeds(source, longest=len(answer), shortest=0)
        feeds["draft_tokens"] = np.array(draft_tokens)
        # A step may look past the answer's end; what stands there is never taken.
        script = [*answer, *[self._eos] * (draft_tokens + 1)]
        feeds[_SCRIPT] = np.array(script, dtype=np.int64)
        tokens, steps = self._drafted.run(["tokens", "steps"], feeds)
        if tokens[0].tolist() != list(answer):
            raise EdgeError("the replayed drafts changed the answer: a fault of edge, report it")
        return int(steps)


def _feeds(source: Sequence[int], *, longest: int, shortest: int) -> dict[str, np.ndarray]:
    ids = np.array([list(source)], dtype=np.int64)
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "max_new_tokens": np.array(longest),
        "min_new_tokens": np.array(shortest),
    }


def _session(path: Path, threads: int) -> ort.InferenceSession:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def _scripted(folder: Path) -> Iterator[Path]:
    """The graph with its further input, beside a hard link to the weights that it names."""
    import onnx

    model = onnx.load(str(folder / _GRAPH), load_external_data=False)
    follow_script(model)
    # Inside of the artifact's parent: a hard link needs the same filesystem.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".replay-") as place:
        for file in folder.iterdir():
            if file.name != _GRAPH:
                os.link(file, Path(place) / file.name)
        path = Path(place) / _GRAPH
        path.write_bytes(model.SerializeToString())
        yield path


def follow_script(model: onnx.ModelProto) -> None:
    """Take every token of the search from the input `script`, int64 [tokens].

    Raises:
        EdgeError: the graph's loop does not end in output := Concat(output, Slice(best, …)).
    """
    from onnx import TensorProto, helper

    graph = model.graph
    script = helper.make_tensor_value_info(_SCRIPT, TensorProto.INT64, ["script"])
    graph.input.append(script)
    body = next((_body(node) for node in graph.node if node.op_type == "Loop"), None)
    longer = _producer(body, "next_output", "Concat") if body else None
    fresh = _producer(body, longer.input[1], "Slice") if body and longer else None
    if not (body and longer and fresh):
        raise EdgeError(f"{_GRAPH}: its search is not built as the replay expects; export it again")
    best, before = fresh.input[0], longer.input[0]
    place = next(i for i, node in enumerate(body.node) if best in node.output)
    chosen = f"{best}_chosen"
    outputs = body.node[place].output
    outputs[list(outputs).index(best)] = chosen

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        nonlocal place
        place += 1
        body.node.insert(place, helper.make_node(op, inputs, [output], **attributes))

    def constant(name: str, value: int) -> str:
        tensor = helper.make_tensor(name, TensorProto.INT64, [1], [value])
        add("Constant", [], name, value=tensor)
        return name

    one, axis = constant("replay_one", 1), constant("replay_axis", 0)
    add("Shape", [before], "replay_length", start=0, end=1)
    add("Sub", ["replay_length", one], "replay_have")  # without the start token
    add("Shape", [chosen], "replay_rows", start=0, end=1)
    add("Add", ["replay_have", "replay_rows"], "replay_end")
    add("Slice", [_SCRIPT, "replay_have", "replay_end", axis], best)


def _body(node: onnx.NodeProto) -> onnx.GraphProto | None:
    return next((a.g for a in node.attribute if a.name == "body"), None)


def _producer(graph: onnx.GraphProto, name: str, kind: str) -> onnx.NodeProto | None:
    """The node of that kind that puts out `name`, looking through Identity nodes."""
    node = next((node for node in graph.node if name in node.output), None)
    if node is not None and node.op_type == "Identity":
        return _producer(graph, node.input[0], kind)
    return node if node is not None and node.op_type == kind else None
