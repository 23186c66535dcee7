"""The hub layout: graphs with Optimum's names, run with ONNX Runtime alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edge.export.hub.publisher import HubPublisher
from edge.export.onnx import files
from edge.export.publish import ExportOptions, plan_targets
from edge.export.source import SourceModel
from edge.runtime.errors import OutputExistsError, ParityError

ENCODER, MERGED = "encoder_model.onnx", "decoder_model_merged.onnx"
FIRST, WITH_PAST = "decoder_model.onnx", "decoder_with_past_model.onnx"
SHAPES: dict[str, dict[str, Any]] = {
    "as flan-t5-small: heads × d_kv is not d_model": {"num_heads": 6, "tied": False},
    "tied, deeper decoder, relu": {
        "num_layers": 1,
        "num_decoder_layers": 3,
        "feed_forward_proj": "relu",
    },
}


def publish(folder: Path, output: Path, quantization: str = "none", **options: Any) -> Path:
    publisher = HubPublisher(SourceModel.open(folder), ExportOptions(**options))
    publisher.publish(plan_targets("onnx", (quantization,))[0], output)
    return output


def run(folder: Path, name: str, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def as_past(outputs: dict[str, np.ndarray], *, first: bool) -> dict[str, np.ndarray]:
    """The inputs of the next step; the encoder's side stays that of the first step."""
    past = {}
    for name, value in outputs.items():
        if ".encoder." in name and not first:
            assert value.shape[0] == 0  # as in Optimum's export: nothing is copied for the caller
        elif name.startswith("present"):
            past[name.replace("present", "past_key_values")] = value
    return past


def first_past(folder: Path, rows: int, head_size: int, length: int) -> dict[str, np.ndarray]:
    """The first past of Optimum (of length 1 in older versions)."""
    session = ort.InferenceSession(folder / MERGED, providers=["CPUExecutionProvider"])
    return {
        one.name: np.full((rows, one.shape[1], length, head_size), np.nan, dtype=np.float32)
        for one in session.get_inputs()
        if one.name.startswith("past_key_values")
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_the_graphs_compute_the_model(
    shape: str, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Padding on either side; first steps and later ones of one token and of several."""
    import torch

    source = SourceModel.open(random_model(**SHAPES[shape]))
    folder = publish(source.folder, tmp_path / "hub")
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 250, (3, 9))
    mask = np.ones_like(ids)
    mask[1, 6:] = 0
    mask[2, :2] = 0
    tokens = rng.integers(3, 250, (3, 7))
    tokens[:, 0] = 0
    with torch.inference_mode():
        reference = source.torch_model(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            decoder_input_ids=torch.from_numpy(tokens),
            use_cache=False,
        )
    logits = reference.logits.numpy()
    encoded = run(folder, ENCODER, input_ids=ids, attention_mask=mask)["last_hidden_state"]
    expected = reference.encoder_last_hidden_state.numpy()
    np.testing.assert_allclose(encoded[mask == 1], expected[mask == 1], atol=1e-4)

    wrong_head_size = source.architecture.d_model // source.architecture.num_heads
    cross = {"encoder_attention_mask": mask, "encoder_hidden_states": encoded}
    for steps in ([1] * 7, [2, 1, 3, 1], [7]):
        for merged in (False, True):
            for dummy_length in (0, 1) if merged else (0,):
                done, past = 0, {}
                for count in steps:
                    feeds = {"input_ids": tokens[:, done : done + count], **cross, **past}
                    name = FIRST
                    if merged:
                        name = MERGED
                        feeds["use_cache_branch"] = np.array([done > 0])
                        if not done:
                            feeds |= first_past(folder, 3, wrong_head_size, dummy_length)
                    elif done:
                        name = WITH_PAST
                        del feeds["encoder_hidden_states"]
                    outputs = run(folder, name, **feeds)
                    found = outputs["logits"]
                    np.testing.assert_allclose(found, logits[:, done : done + count], atol=1e-3)
                    past |= as_past(outputs, first=not done)
                    done += count
                assert done == 7


def test_names_order_and_types_are_optimums(
    random_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = publish(random_model(num_decoder_layers=1), tmp_path / "hub")
    mask_and_ids = ["encoder_attention_mask", "input_ids"]
    past, present = (
        [f"{name}.0.{side}.{kind}" for side in ("decoder", "encoder") for kind in ("key", "value")]
        for name in ("past_key_values", "present")
    )
    expected = {
        ENCODER: (["input_ids", "attention_mask"], ["last_hidden_state"]),
        FIRST: ([*mask_and_ids, "encoder_hidden_states"], ["logits", *present]),
        WITH_PAST: ([*mask_and_ids, *past], ["logits", *present[:2]]),
        MERGED: (
            [*mask_and_ids, "encoder_hidden_states", *past, "use_cache_branch"],
            ["logits", *present],
        ),
    }
    types = {"input_ids": "int64", "use_cache_branch": "bool"}
    for name, names in expected.items():
        session = ort.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
        assert ([one.name for one in inputs], [one.name for one in outputs]) == names
        for one in (*inputs, *outputs):
            kind = "int64" if "mask" in one.name else types.get(one.name, "float")
            assert one.type == f"tensor({kind})"


@pytest.mark.parametrize("quantization", ["float32", "int8", "int4"])
def test_weights_are_stored_once(
    quantization: str, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    """The two decoders' in the merged one's file; encoder and merged decoder need no other file."""
    folder = publish(random_model(tied=False), tmp_path / "hub", quantization, mean_error=5.0)
    places = {
        name: {
            entry.value
            for tensor in onnx.load(folder / name, load_external_data=False).graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        for name in (ENCODER, MERGED, FIRST, WITH_PAST)
    }
    assert places == {ENCODER: set(), MERGED: set(), FIRST: {MERGED}, WITH_PAST: {MERGED}}
    card = (folder / "README.md").read_text()
    assert f"- {quantization}\n" in card
    assert "ORTModelForSeq2SeqLM" in card


def test_a_model_too_large_for_one_file_has_its_weights_beside_it(
    random_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for 2 GiB and more; under the file name that both programs expect."""
    monkeypatch.setattr(files, "_EMBEDDED_BYTES", 0)
    folder = publish(random_model(), tmp_path / "hub")
    data = {f"{ENCODER}_data", f"{MERGED}_data"}
    assert {path.name for path in folder.glob("*_data")} == data
    config = json.loads((folder / "config.json").read_text())
    chunks = config["transformers.js_config"]["use_external_data_format"]
    assert chunks == {ENCODER: 1, MERGED: 1}


def test_the_files_beside_the_graphs_are_the_models(trained: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    folder = publish(trained, tmp_path / "hub", "int8", generation={"num_beams": 3})
    text = "When was the uh the old bridge of São Paulo built?"
    expected, exported = (AutoTokenizer.from_pretrained(place)(text) for place in (trained, folder))
    assert list(expected["input_ids"]) == list(exported["input_ids"])
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 knows it
    generation = GenerationConfig.from_pretrained(folder)
    assert (generation.num_beams, generation.decoder_start_token_id) == (3, 0)
    assert generation.max_new_tokens > 20
    config = json.loads((folder / "config.json").read_text())
    source_config = json.loads((trained / "config.json").read_text())
    assert source_config.items() <= config.items()


def test_it_is_published_whole_or_not_at_all(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="mean log-probability error"):
        publish(trained, tmp_path / "hub", "int8", mean_error=1e-9)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "mine.txt").write_text("x")
    with pytest.raises(OutputExistsError):
        publish(trained, tmp_path / "hub", "int8")
    assert [path.name for path in (tmp_path / "hub").iterdir()] == ["mine.txt"]


def test_both_pairs_of_decoders_are_checked(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the later decoder alone, not in the merged one, is found."""
    from edge.export.hub.graphs import _Decoders

    original = _Decoders.with_past

    def without_bias(self: Any) -> Any:
        from edge.export.onnx.decoder import DecoderEmitter

        with monkeypatch.context() as patch:
            real = DecoderEmitter.position_bias
            patch.setattr(
                DecoderEmitter,
                "position_bias",
                lambda emitter, *names: emitter.graph.op(
                    "Mul", real(emitter, *names), emitter.graph.constant(0.0, np.float32)
                ),
            )
            return original(self)

    monkeypatch.setattr(_Decoders, "with_past", without_bias)
    with pytest.raises(ParityError, match="greedy"):
        publish(trained, tmp_path / "hub")
    assert list(tmp_path.iterdir()) == []


def test_the_command(edge: Callable[..., Any], trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "hub"
    base = ("export", trained, "--format", "onnx", "--layout", "hub", "--quantize", "int8")
    ended = edge(*base, "--output", output)
    assert ended.status == 0, ended
    assert "onnx-int8" in ended.out
    assert "README.md" in ended.out
    assert not (output / "edge.json").exists()
    for command in (("run", output, "hello"), ("info", output), ("verify", output)):
        refused = edge(*command)
        assert refused.status == 2
        assert "ONNX files in the hub layout" in refused.err
        assert "ORTModelForSeq2SeqLM" in refused.err
        assert "without --layout hub" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "gguf"), "is for --format onnx only, not for gguf"),
        (("--format", "all"), "is for --format onnx only, not for all"),
        (("--format", "onnx", "--prefix", "rewrite: "), "does not support --prefix"),
        (("--format", "onnx", "--max-input-tokens", "9"), "does not support --max-input-tokens"),
        (("--format", "onnx", "--stop", "."), "--stop: not supported"),
    ],
)
def test_what_the_layout_does_not_support_is_refused(
    arguments: tuple[str, ...],
    message: str,
    assert_refused: Callable[..., str],
    random_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    line = assert_refused(
        "export", random_model(), "--layout", "hub", "--output", output, *arguments
    )
    assert message in line
    assert not output.exists()
