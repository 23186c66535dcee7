"""Replay of a trained model's drafts on a larger shape with random weights.

A model with random weights never copies its input, so all of its drafts would be wrong. Here the
graph of speculative decoding (`speculative.onnx`) gets an additional input, `script`, whose tokens
replace those that greedy search chooses. Encoder, decoder steps, logits and argmax are still
computed. With the source and answer of a trained model, the graph takes that model's decoder steps,
each at the cost of the larger shape. The same holds for the edited input of a draft head
(`edited_script`): the larger shape's head is computed, and the trained model's text is used.
"""

from __future__ import annotations

import abc
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

GRAPH, EDITED = "speculative.onnx", "edited"
_WEIGHTS = "model.onnx"
_SCRIPT, _EDITED_SCRIPT = "script", "edited_script"


class Replay(abc.ABC):
    """Plain greedy search of an artifact, and search with drafts that follows a script."""

    @abc.abstractmethod
    def plain(self, source: Sequence[int], length: int) -> int:
        """Greedy search of exactly `length` tokens; returns the number of decoder steps."""

    def drafted(
        self,
        source: Sequence[int],
        answer: Sequence[int],
        draft_tokens: int,
        edited: Sequence[int] | None = None,
    ) -> int:
        """Search with drafts, made to return `answer`; returns the number of decoder steps.

        Args:
            source: the input.
            answer: what the search returns.
            draft_tokens: the longest draft.
            edited: the edited input, for an artifact with a draft head.

        Raises:
            EdgeError: the search returned another answer.
        """
        tokens, steps = self._follow(source, answer, draft_tokens, edited)
        if tokens != list(answer):
            raise EdgeError(
                "the replayed drafts changed the answer. This is a bug of edge: please report it."
            )
        return steps

    @abc.abstractmethod
    def _follow(
        self,
        source: Sequence[int],
        answer: Sequence[int],
        draft_tokens: int,
        edited: Sequence[int] | None,
    ) -> tuple[list[int], int]:
        """The tokens that the search with drafts returns, end token included, and its steps."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free the model."""


class GraphReplay(Replay):
    """The replay of an onnx artifact, whose graphs hold the whole search."""

    def __init__(self, folder: Path, threads: int, eos: int) -> None:
        """Open both graphs of the artifact in `folder`.

        Raises:
            EdgeError: the graph has an unexpected structure, or can't be loaded.
        """
        from edge.runtime.engines.onnx.engine import open_session

        self._eos = eos
        self._plain = open_session(folder / _WEIGHTS, threads)
        with _scripted(folder) as path:
            self._drafted = open_session(path, threads)

    def plain(self, source: Sequence[int], length: int) -> int:
        """See `Replay.plain`."""
        feeds = search_feeds(source, longest=length, shortest=length)
        tokens = self._plain.run(["tokens"], feeds)[0]
        assert tokens.shape[1] == length, tokens.shape
        return length

    def _follow(
        self,
        source: Sequence[int],
        answer: Sequence[int],
        draft_tokens: int,
        edited: Sequence[int] | None,
    ) -> tuple[list[int], int]:
        feeds = search_feeds(source, longest=len(answer), shortest=0)
        feeds["draft_tokens"] = np.array(draft_tokens)
        # A step may read past the end of the answer; these tokens are never used.
        script = [*answer, *[self._eos] * (draft_tokens + 1)]
        feeds[_SCRIPT] = np.array(script, dtype=np.int64)
        if edited is not None:
            feeds[_EDITED_SCRIPT] = np.array(edited, dtype=np.int64)
        # The edited input is asked for, so that the head is computed.
        extra = [] if edited is None else [EDITED]
        tokens, steps, *_ = self._drafted.run(["tokens", "steps", *extra], feeds)
        return tokens[0].tolist(), int(steps)

    def close(self) -> None:
        """See `Replay.close`."""
        del self._plain, self._drafted


def search_feeds(source: Sequence[int], *, longest: int, shortest: int) -> dict[str, np.ndarray]:
    """Inputs of both graphs for one row, without the drafts' length."""
    ids = np.array([list(source)], dtype=np.int64)
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "max_new_tokens": np.array(longest),
        "min_new_tokens": np.array(shortest),
    }


@contextmanager
def _scripted(folder: Path) -> Iterator[Path]:
    """A file of the graph with its additional input, beside hard links to the weights."""
    import onnx

    model = onnx.load(str(folder / GRAPH), load_external_data=False)
    follow_script(model)
    # In the artifact's parent folder, since a hard link needs the same filesystem.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".replay-") as place:
        for file in folder.iterdir():
            if file.name != GRAPH:
                os.link(file, Path(place) / file.name)
        path = Path(place) / GRAPH
        path.write_bytes(model.SerializeToString())
        yield path


def follow_script(model: onnx.ModelProto) -> None:
    """Change the graph so that the search takes its tokens from an input `script`, int64 [tokens].

    Raises:
        EdgeError: the graph's loop does not end in output := Concat(output, Slice(best, …)).
    """
    from onnx import TensorProto, helper

    graph = model.graph
    script = helper.make_tensor_value_info(_SCRIPT, TensorProto.INT64, ["script"])
    graph.input.append(script)
    _follow_edited(graph)
    body = next((_body(node) for node in graph.node if node.op_type == "Loop"), None)
    longer = _producer(body, "next_output", "Concat") if body else None
    fresh = _producer(body, longer.input[1], "Slice") if body and longer else None
    if not (body and longer and fresh):
        raise EdgeError(f"{GRAPH} has an unexpected structure. Export the artifact again.")
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


def _follow_edited(graph: onnx.GraphProto) -> None:
    """Take the edited input, if the graph has one, from an input `edited_script`."""
    from onnx import TensorProto, helper

    shown = next((node for node in graph.node if EDITED in node.output), None)
    if shown is None:
        return
    graph.input.append(
        helper.make_tensor_value_info(_EDITED_SCRIPT, TensorProto.INT64, ["edited_script"])
    )
    for node in graph.node:
        if node is not shown and shown.input[0] in node.input:
            node.input[list(node.input).index(shown.input[0])] = _EDITED_SCRIPT


def _body(node: onnx.NodeProto) -> onnx.GraphProto | None:
    return next((a.g for a in node.attribute if a.name == "body"), None)


def _producer(graph: onnx.GraphProto, name: str, op_type: str) -> onnx.NodeProto | None:
    """The node of type `op_type` with the output `name`, behind any Identity nodes."""
    node = next((node for node in graph.node if name in node.output), None)
    if node is not None and node.op_type == "Identity":
        return _producer(graph, node.input[0], op_type)
    return node if node is not None and node.op_type == op_type else None
