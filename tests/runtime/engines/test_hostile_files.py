"""Malicious model files with a consistent manifest: an error in one line, before the library."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_forgery import fit_manifest, forge

from edge.export.publish import Publisher, Target
from edge.runtime import load
from edge.runtime.artifact import Artifact
from edge.runtime.engines.base import Vocabulary
from edge.runtime.engines.boundary import check_logits, engine_errors, greedy_hypotheses
from edge.runtime.engines.ctranslate2.model_file import ModelFile, Variable, read_model_file
from edge.runtime.engines.ctranslate2.variables import check_variables
from edge.runtime.engines.gguf.header import read_header
from edge.runtime.engines.onnx.graph_reader import external_files
from edge.runtime.errors import ArtifactError, EdgeError
from edge.runtime.options import GenerationOptions
from edge.runtime.probe import probe
from samples import save_letter_model

FORMATS = {"ctranslate2": "int8", "gguf": "f32", "onnx": "int8"}
TYPE_IDS = ("float32", "int8", "int16", "int32", "float16", "bfloat16")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One artifact of each format that holds data, not code."""
    source = save_letter_model(tmp_path_factory.mktemp("model"), seed=11)
    publisher = Publisher(source)
    root = tmp_path_factory.mktemp("artifacts")
    for name, quantization in FORMATS.items():
        publisher.publish(Target(name, quantization), root / name)
    return {name: root / name for name in FORMATS}


def assert_refused(folder: Path, match: str) -> None:
    """Loading raises one line that names a file of the folder."""
    with pytest.raises(ArtifactError, match=match) as caught:
        load(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message


# -- files that the manifest does not list -------------------------------------------------------


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_unlisted_file_is_named(
    folders: dict[str, Path], format_name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(folders[format_name], folder)
    (folder / ".gitattributes").write_text("harmless")
    load(folder).close()
    (folder / "secret.bin").write_bytes(b"x")
    assert_refused(folder, r"secret\.bin is not in the manifest")


@pytest.mark.parametrize("location", [".hidden", "../outside", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"])
def test_a_graph_reads_listed_files_only(
    folders: dict[str, Path], tmp_path: Path, location: str
) -> None:
    import onnx

    assert external_files(folders["onnx"] / "decoder.onnx") == {"model.onnx"}

    def change(folder: Path) -> None:
        graph = onnx.load(str(folder / "model.onnx"), load_external_data=False)
        tensor = graph.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        onnx.save(graph, str(folder / "model.onnx"))

    folder = forge(folders["onnx"], tmp_path / "artifact", change)
    (folder / ".hidden").write_bytes(b"x" * 1000)
    assert_refused(folder, "which is not in the manifest")


def test_nested_graphs_and_attributes_are_searched(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    def tensor(location: str) -> onnx.TensorProto:
        found = helper.make_tensor("t", onnx.TensorProto.UINT8, [1], b"\0", raw=True)
        found.ClearField("raw_data")
        found.data_location = onnx.TensorProto.EXTERNAL
        found.external_data.add(key="location", value=location)
        return found

    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["x"], value=tensor("a"))], "i", [], []
    )
    inner.initializer.append(tensor("b"))
    body = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([body], "g", [], [], initializer=[tensor("c")])
    model = helper.make_model(graph)
    model.functions.append(helper.make_function("d", "f", [], [], [body], []))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert external_files(path) == {"a", "b", "c"}


def node_of(folder: Path, operator: str) -> tuple[Any, Any]:
    """model.onnx, and the first node of an operator in its graphs."""
    import onnx

    model = onnx.load(str(folder / "model.onnx"))
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        for node in graph.node:
            if node.op_type == operator:
                return model, node
            pending += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    raise AssertionError(f"no {operator}")


@pytest.mark.parametrize(
    ("operator", "change", "said"),
    [
        # Each ends the process of ONNX Runtime 1.31: SIGABRT, 4 × the memory, SIGSEGV.
        ("Split", lambda node: setattr(attribute(node, "num_outputs"), "i", 1), "has 4 outputs"),
        ("Split", lambda node: setattr(attribute(node, "num_outputs"), "i", 10**7), "10000000"),
        ("Max", lambda node: node.input.__setitem__(1, ""), "an input of Max is missing"),
        ("Split", lambda node: node.attribute.append(node.attribute[0]), "an attribute twice"),
    ],
)
def test_nodes_that_onnx_runtime_crashes_by(
    folders: dict[str, Path],
    tmp_path: Path,
    operator: str,
    change: Callable[[Any], None],
    said: str,
) -> None:
    import onnx

    def edit(folder: Path) -> None:
        model, node = node_of(folder, operator)
        change(node)
        onnx.save(model, str(folder / "model.onnx"))

    assert_refused(forge(folders["onnx"], tmp_path / "artifact", edit), said)


def attribute(node: Any, name: str) -> Any:
    [found] = [one for one in node.attribute if one.name == name]
    return found


def test_batch_dimensions_out_of_range(tmp_path: Path) -> None:
    from onnx import helper

    node = helper.make_node("GatherND", ["x", "i"], ["y"], batch_dims=-(2**31))
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"batch_dims is -2147483648"):
        external_files(path)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x3a\xff", b"\xff" * 20, b"\x3b", b"<html>"])
def test_a_file_that_is_no_graph(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model\.onnx: "):
        external_files(path)


# -- ctranslate2 ---------------------------------------------------------------------------------


def write_model_file(model: ModelFile, path: Path, version: int = 6) -> None:
    """Write a model.bin as `ModelSpec._serialize` does."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", version), text(model.specification)]
    parts.append(struct.pack("<II", model.revision, len(model.variables)))
    for name, one in model.variables.items():
        parts += [text(name), struct.pack(f"<B{len(one.shape)}I", len(one.shape), *one.shape)]
        parts += [struct.pack("<BI", TYPE_IDS.index(one.type), len(one.data)), bytes(one.data)]
    parts.append(struct.pack("<I", len(model.aliases)))
    parts += [text(name) + text(target) for name, target in model.aliases.items()]
    path.write_bytes(b"".join(parts))


@pytest.fixture
def model_file(folders: dict[str, Path]) -> ModelFile:
    path = folders["ctranslate2"] / "model.bin"
    return read_model_file(path.read_bytes(), path)


def replaced(model: ModelFile, **changes: Any) -> ModelFile:
    """A copy with some variables replaced, or removed where None."""
    variables = {**model.variables, **changes}
    return ModelFile(
        model.specification,
        model.revision,
        {name: one for name, one in variables.items() if one is not None},
        model.aliases,
    )


def scalar(kind: str, value: float) -> Variable:
    return Variable((), kind, memoryview(np.array(value, np.dtype(kind)).tobytes()))


def test_the_file_is_written_as_it_was_read(
    folders: dict[str, Path], model_file: ModelFile, tmp_path: Path
) -> None:
    path = folders["ctranslate2"] / "model.bin"
    write_model_file(model_file, tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == path.read_bytes()
    check_variables(model_file, Artifact.open(path.parent).manifest, path)


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        # These crashed the process.
        ("decoder/alignment_layer", "int16", 1),
        ("decoder/alignment_layer", "int16", -128),
        ("decoder/alignment_layer", "int16", 127),
        ("encoder/layer_0/self_attention/relative_attention_max_distance", "int32", -1),
        ("encoder/num_heads", "int16", 0),
        ("decoder/num_heads", "int16", 0),
        ("decoder/scale_outputs", "float32", float("nan")),
        ("decoder/activation", "int8", 7),
        ("decoder/num_heads", "int32", 3),
    ],
)
def test_a_setting_that_crashes_the_library(
    folders: dict[str, Path],
    model_file: ModelFile,
    tmp_path: Path,
    name: str,
    kind: str,
    value: float,
) -> None:
    changed = replaced(model_file, **{name: scalar(kind, value)})
    folder = forge(
        folders["ctranslate2"],
        tmp_path / "artifact",
        lambda folder: write_model_file(changed, folder / "model.bin"),
    )
    assert_refused(folder, name)


def every_setting(model: ModelFile) -> Iterator[tuple[str, ModelFile]]:
    """Every scalar with every extreme value of its type, and with every other type."""
    for name, one in model.variables.items():
        if one.shape != ():
            continue
        for kind in ("float32", "int8", "int16", "int32"):
            dtype = np.dtype(kind)
            info = np.finfo(dtype) if kind == "float32" else np.iinfo(dtype)
            for value in (info.min, -1, 0, 1, 2, 3, 127, info.max):
                changed = scalar(kind, float(value) if kind == "float32" else int(value))
                if (changed.type, bytes(changed.data)) != (one.type, bytes(one.data)):
                    yield f"{name} {kind} {value}", replaced(model, **{name: changed})


def test_every_setting_is_held(folders: dict[str, Path], model_file: ModelFile) -> None:
    manifest = Artifact.open(folders["ctranslate2"]).manifest
    tried = 0
    for what, changed in every_setting(model_file):
        tried += 1
        with pytest.raises(ArtifactError):
            check_variables(changed, manifest, what)
    assert tried > 500


def test_every_variable_is_held(folders: dict[str, Path], model_file: ModelFile) -> None:
    """Each one missing, of other shapes, of other types, and an alias of each other one."""
    manifest = Artifact.open(folders["ctranslate2"]).manifest
    for name, one in model_file.variables.items():
        changed = [None, Variable((*one.shape, 1), one.type, one.data)]
        if one.shape:
            changed.append(Variable((1, *one.shape[:-1]), one.type, one.data[:1]))
        changed += [Variable(one.shape, kind, one.data) for kind in TYPE_IDS if kind != one.type]
        for variable in changed:
            with pytest.raises(ArtifactError):
                check_variables(replaced(model_file, **{name: variable}), manifest, "model.bin")
        if one.type == "float32":
            for value in (float("nan"), float("inf")):
                data = np.frombuffer(one.data, "<f4").copy()
                data[-1] = value
                bad = Variable(one.shape, one.type, memoryview(data.tobytes()))
                with pytest.raises(ArtifactError):
                    check_variables(replaced(model_file, **{name: bad}), manifest, "model.bin")
    extra = replaced(model_file, **{"decoder/layer_9/ffn/linear_0/weight": scalar("int8", 0)})
    with pytest.raises(ArtifactError, match="unexpected variable"):
        check_variables(extra, manifest, "model.bin")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: struct.pack("<I", 7) + data[4:],
        lambda data: data[:4] + b"\xff\xff" + data[6:],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
    ],
)
def test_a_damaged_model_file(
    folders: dict[str, Path], tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    def damage(folder: Path) -> None:
        path = folder / "model.bin"
        path.write_bytes(change(path.read_bytes()))

    folder = forge(folders["ctranslate2"], tmp_path / "artifact", damage)
    with pytest.raises(ArtifactError, match=r"damaged model file|does not fit into"):
        load(folder)


def test_config_json_is_not_used(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = forge(
        folders["ctranslate2"],
        tmp_path / "artifact",
        lambda folder: (folder / "config.json").write_text("[" * 100_000),
    )
    with load(folder) as model, load(folders["ctranslate2"]) as before:
        assert model.generate("hello").text == before.generate("hello").text


# -- gguf ----------------------------------------------------------------------------------------


def patch_gguf(folder: Path, key: str, value: bytes) -> None:
    """Overwrite the first bytes of a metadata value; its key ends where the type begins."""
    path = folder / "model.gguf"
    data = bytearray(path.read_bytes())
    at = data.index(key.encode()) + len(key) + 4
    data[at : at + len(value)] = value
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("t5.context_length", struct.pack("<I", 0)),
        ("t5.context_length", struct.pack("<I", 1 << 31)),
        ("t5.context_length", struct.pack("<I", (1 << 32) - 1)),
        ("t5.block_count", struct.pack("<I", 0)),
        ("t5.attention.head_count", struct.pack("<I", 0)),
        ("t5.attention.layer_norm_rms_epsilon", struct.pack("<f", float("nan"))),
        ("t5.attention.layer_norm_epsilon", struct.pack("<f", -1)),
        ("t5.attention.relative_buckets_count", struct.pack("<I", 1 << 30)),
        ("tokenizer.ggml.eos_token_id", struct.pack("<I", 1 << 31)),
        ("tokenizer.ggml.unknown_token_id", struct.pack("<I", (1 << 32) - 1)),
        # Arrays: type and count come before the values.
        ("tokenizer.ggml.scores", struct.pack("<IQf", 6, 160, float("nan"))),
        ("tokenizer.ggml.token_type", struct.pack("<IQi", 5, 160, 99)),
        ("tokenizer.ggml.tokens", struct.pack("<IQQ", 8, 160, 5) + b"<p\0d>"),
    ],
)
def test_gguf_values_are_held(
    folders: dict[str, Path], tmp_path: Path, key: str, value: bytes
) -> None:
    folder = forge(
        folders["gguf"], tmp_path / "artifact", lambda folder: patch_gguf(folder, key, value)
    )
    assert_refused(folder, r"model\.gguf")


def test_a_long_gguf_piece_is_refused(tmp_path: Path) -> None:
    """llama.cpp overflows the stack with one of 1 MiB."""
    import gguf

    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "t5")
    writer.add_token_list(["<pad>", "x" * 4001])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ArtifactError, match="more than 4,000 bytes"):
        read_header(path)


def test_gguf_tensor_types_are_held(folders: dict[str, Path], tmp_path: Path) -> None:
    """A norm that is not float32 aborts the process."""
    name = "enc.output_norm.weight"
    size = read_header(folders["gguf"] / "model.gguf").tensors[name].size

    def change(folder: Path) -> None:
        path = folder / "model.gguf"
        data = bytearray(path.read_bytes())
        at = data.index(name.encode()) + len(name)
        assert struct.unpack_from("<IQI", data, at) == (1, size // 4, 0)
        struct.pack_into("<I", data, at + 12, 1)  # float16; the data that follows moves
        path.write_bytes(data)

    assert_refused(forge(folders["gguf"], tmp_path / "artifact", change), r"model\.gguf")


# -- the manifest --------------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("architecture", "vocab_size", 3 * 10**7),
        ("architecture", "vocab_size", 1 << 21),
        ("architecture", "num_layers", 10**8),
        ("architecture", "num_decoder_layers", 10**8),
        ("architecture", "relative_attention_max_distance", 1 << 24),
        ("architecture", "relative_attention_num_buckets", 0),
        ("architecture", "layer_norm_epsilon", 1e309),
        ("architecture", "d_model", 10**4000),
        ("limits", "max_new_tokens", 1 << 31),
        ("limits", "max_input_tokens", 1 << 60),
    ],
)
def test_numbers_of_the_manifest_are_bounded(
    folders: dict[str, Path], tmp_path: Path, format_name: str, section: str, name: str, value: int
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(folders[format_name], folder)
    manifest = json.loads((folder / "edge.json").read_text())
    manifest[section][name] = value
    (folder / "edge.json").write_text(json.dumps(manifest))
    assert_refused(folder, "edge.json")


# -- what a model computes -----------------------------------------------------------------------

VOCABULARY = Vocabulary(size=160, pieces=100, pad=0, eos=1, start=0)
GOOD = (
    np.array([[5, 6, 1]]),
    np.array([3]),
    np.array([-1.5], np.float32),
    np.array([True]),
)


@pytest.mark.parametrize(
    ("place", "array"),
    [
        (0, np.array([[5, -1, 1]])),
        (0, np.array([[5, 1 << 32, 1]])),
        (0, np.array([[5, 160, 1]])),
        (0, np.array([5, 6, 1])),
        (0, np.array([[0.5, 6, 1]])),
        (0, np.array([[5] * 99])),
        (0, np.zeros((1, 0), np.int64)),
        (1, np.array([0])),
        (1, np.array([4])),
        (1, np.array([[3]])),
        (2, np.array([np.nan], np.float32)),
        (2, np.array(["x"])),
        (3, np.array([True, False])),
    ],
)
def test_outputs_of_a_greedy_loop_are_checked(place: int, array: np.ndarray) -> None:
    options, path = GenerationOptions(max_new_tokens=8), Path("model.onnx")
    outputs = list(GOOD)
    found = greedy_hypotheses(outputs, options, VOCABULARY, rows=1, path=path)
    assert found[0][0].token_ids == (5, 6)
    outputs[place] = array
    with pytest.raises(ArtifactError, match=r"model\.onnx: it computes"):
        greedy_hypotheses(outputs, options, VOCABULARY, rows=1, path=path)


def test_logits_are_checked() -> None:
    path = Path("model.onnx")
    check_logits(np.zeros((2, 1, 9), np.float32), (2, 1, 9), path)
    with pytest.raises(ArtifactError, match="expected float32"):
        check_logits(np.zeros((2, 1, 8), np.float32), (2, 1, 9), path)
    with pytest.raises(EdgeError, match="NaN"):
        check_logits(np.full((2, 1, 9), np.nan, np.float32), (2, 1, 9), path)


def fail(error: Exception, *, loading: bool = False) -> None:
    with engine_errors(Path("m.bin"), "Library 1", loading=loading):
        raise error


def test_errors_of_libraries_become_one_sentence() -> None:
    with pytest.raises(EdgeError, match=r"^m\.bin: Library 1 failed to run it \(one\)$"):
        fail(RuntimeError("one\ntwo"))
    with pytest.raises(ArtifactError, match=r"^m\.bin: Library 1 can't load it \(KeyError\)"):
        fail(KeyError(), loading=True)


def constant_graph(folder: Path, token: int) -> None:
    """Replace model.onnx by a graph that always answers with one token."""
    import onnx
    from onnx import TensorProto, helper

    ints = {"input_ids": 2, "attention_mask": 2, "max_new_tokens": 0, "min_new_tokens": 0}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [None] * rank)
        for name, rank in ints.items()
    ]
    values = {
        "tokens": helper.make_tensor("", TensorProto.INT64, [1, 1], [token]),
        "lengths": helper.make_tensor("", TensorProto.INT64, [1], [1]),
        "log_probs": helper.make_tensor("", TensorProto.FLOAT, [1], [-1.0]),
        "finished": helper.make_tensor("", TensorProto.BOOL, [1], [False]),
    }
    nodes = [helper.make_node("Constant", [], [name], value=one) for name, one in values.items()]
    outputs = [helper.make_tensor_value_info(n, v.data_type, None) for n, v in values.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = model.SerializeToString()
    # The other graphs read weights from this file, which the manifest's sizes must allow.
    (folder / "model.onnx").write_bytes(data)
    assert onnx.load(str(folder / "model.onnx"), load_external_data=False)


@pytest.mark.parametrize("token", [-1, 1 << 32, 160])
def test_a_token_that_does_not_exist(folders: dict[str, Path], tmp_path: Path, token: int) -> None:
    folder = forge(
        folders["onnx"], tmp_path / "artifact", lambda folder: constant_graph(folder, token)
    )
    with load(folder) as model, pytest.raises(ArtifactError, match="token ids from"):
        model.generate("hello", max_new_tokens=4, min_new_tokens=0)


# -- the trial load ------------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_sound_artifact_passes(folders: dict[str, Path], format_name: str) -> None:
    assert probe(folders[format_name]).finish_reason in ("eos", "length")


def test_a_crash_is_a_sentence(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ArtifactError, match=r"crashed the engine's library \(SIGSEGV\)"):
        probe(folders["onnx"])


def test_an_endless_loop_is_a_sentence(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx import TensorProto, helper

    monkeypatch.setattr("edge.runtime.probe._CPU_SECONDS", 2)

    def change(folder: Path) -> None:
        constant_graph(folder, 5)
        import onnx

        model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
        yes = helper.make_tensor("", TensorProto.BOOL, [], [True])
        body = helper.make_graph(
            [helper.make_node("Identity", ["go_in"], ["go_out"])],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            ],
            [helper.make_tensor_value_info("go_out", TensorProto.BOOL, [])],
        )
        for node in model.graph.node:
            if node.output[0] == "finished":
                node.output[0] = "finished_once"
        del body.output[:]
        body.output.append(helper.make_tensor_value_info("go_out", TensorProto.BOOL, []))
        body.input.append(helper.make_tensor_value_info("f_in", TensorProto.BOOL, [1]))
        body.node.append(helper.make_node("Identity", ["f_in"], ["f_out"]))
        body.output.append(helper.make_tensor_value_info("f_out", TensorProto.BOOL, [1]))
        model.graph.node.extend(
            [
                helper.make_node("Constant", [], ["yes"], value=yes),
                helper.make_node("Loop", ["", "yes", "finished_once"], ["finished"], body=body),
            ]
        )
        onnx.save(model, str(folder / "model.onnx"))

    folder = forge(folders["onnx"], tmp_path / "artifact", change)
    with pytest.raises(ArtifactError, match="took more than 2 s of processor time"):
        probe(folder)


def test_the_manifest_helper_fits(folders: dict[str, Path], tmp_path: Path) -> None:
    """Otherwise the refusals above could be those of the hashes."""
    shutil.copytree(folders["gguf"], tmp_path / "copy")
    fit_manifest(tmp_path / "copy")
    Artifact.open(tmp_path / "copy", verify=True)
