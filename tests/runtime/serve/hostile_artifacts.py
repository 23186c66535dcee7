"""Artifacts with hostile files and a manifest that fits them, for the tests of `edge serve`."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

# A pre-tokenizer whose search never ends for PANIC_TEXT: the tokenizers library panics.
PANIC_REGEX = "(a|aa)+$"
PANIC_TEXT = "a" * 40 + "b"


def copy_with(source: Path, target: Path, **files: bytes) -> Path:
    """Copy an artifact, replace files (`model_onnx` is model.onnx), and fix the manifest."""
    shutil.copytree(source, target)
    manifest = json.loads((target / "edge.json").read_text())
    for key, content in files.items():
        name = key.replace("_", ".")
        (target / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"sha256": digest, "size": len(content)}
        if name == "tokenizer.json":
            manifest["tokenizer"]["sha256"] = digest
    (target / "edge.json").write_text(json.dumps(manifest))
    return target


def with_panicking_tokenizer(source: Path, target: Path) -> Path:
    """An artifact whose tokenizer panics for `PANIC_TEXT` and works for other texts."""
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    split = {
        "type": "Split",
        "pattern": {"Regex": PANIC_REGEX},
        "behavior": "Isolated",
        "invert": False,
    }
    before = tokenizer["pre_tokenizer"]
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, before]}
    return copy_with(source, target, tokenizer_json=json.dumps(tokenizer).encode())


def with_endless_loop(source: Path, target: Path) -> Path:
    """An ONNX artifact whose graph of greedy search never ends."""
    return copy_with(source, target, model_onnx=_endless_graph())


def _endless_graph() -> bytes:
    import onnx
    from onnx import TensorProto, helper

    def value(name: str, kind: int, *shape: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep_going"], ["keep_going_on"]),
            helper.make_node("Identity", ["state"], ["next_state"]),
        ],
        "body",
        [
            value("step", TensorProto.INT64),
            value("keep_going", TensorProto.BOOL),
            value("state", TensorProto.INT64, "rows", "columns"),
        ],
        [
            value("keep_going_on", TensorProto.BOOL),
            value("next_state", TensorProto.INT64, "rows", "columns"),
        ],
    )
    graph = helper.make_graph(
        [
            # No trip count: the loop ends when its condition is false, which it never is.
            helper.make_node("Loop", ["", "true", "input_ids"], ["tokens"], body=body),
            helper.make_node("ReduceSum", ["attention_mask"], ["lengths"], keepdims=0),
            helper.make_node("Cast", ["tokens"], ["log_probs"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["lengths"], ["finished"], to=TensorProto.BOOL),
            helper.make_node("Add", ["max_new_tokens", "min_new_tokens"], ["unused"]),
        ],
        "greedy",
        [
            value("input_ids", TensorProto.INT64, "rows", "columns"),
            value("attention_mask", TensorProto.INT64, "rows", "columns"),
            value("max_new_tokens", TensorProto.INT64),
            value("min_new_tokens", TensorProto.INT64),
        ],
        [
            value("tokens", TensorProto.INT64, "rows", "columns"),
            value("lengths", TensorProto.INT64),
            value("log_probs", TensorProto.FLOAT, "rows", "columns"),
            value("finished", TensorProto.BOOL),
            value("unused", TensorProto.INT64),
        ],
        initializer=[true],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
