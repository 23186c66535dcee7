"""Every format against transformers itself, over the shapes that T5 models come in."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.export.api import publish_all
from edge.export.publish import ExportOptions, Publisher, plan_targets
from edge.export.source import SourceModel
from edge.runtime import load
from edge.runtime.errors import ModelError
from samples import FORMATS

SHAPES: dict[str, dict[str, Any]] = {
    "tied, scaled, v5 folder": {"tied": True},
    "tied, scaled, v4 folder": {"tied": True, "written_by": 4},
    "untied head, v5 folder": {"tied": False},
    "untied head, v4 folder": {"tied": False, "written_by": 4},
    "deeper encoder": {"num_layers": 3, "num_decoder_layers": 1, "tied": False},
    "deeper decoder": {"num_layers": 1, "num_decoder_layers": 3},
    "6 heads × 16 in a width of 64": {"num_heads": 6, "tied": False},
    "relu, as T5 v1.0": {"feed_forward_proj": "relu"},
    "other distances": {
        "relative_attention_num_buckets": 16,
        "relative_attention_max_distance": 20,
    },
    "a width that no block divides": {"d_model": 72, "d_ff": 104},
}
INPUT = "what is the bridge of the old town near number 7 in Berlin by Anna from Rome with stones"


def test_a_model_that_computes_no_numbers_is_blamed(
    random_model: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = random_model()
    weights = load_file(folder / "model.safetensors")
    weights["decoder.final_layer_norm.weight"][:] = 3e38
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    publisher = Publisher(SourceModel.open(folder))
    with pytest.raises(ModelError, match="the model itself, in float32, computes log-prob"):
        publisher.publish(plan_targets("onnx", ("none",))[0], tmp_path / "out")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format_name", FORMATS)
def test_float32_artifacts_are_the_model(
    format_name: str, shape: str, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Greedy tokens, log-probabilities and beams, alone and in padded batches."""
    import torch

    folder = random_model(**SHAPES[shape])
    source = SourceModel.open(folder)
    [target] = plan_targets(format_name, ("none",))
    [exported] = publish_all(Publisher(source), [target], tmp_path / "artifact")
    assert exported.parity.greedy_identical >= exported.parity.inputs - (format_name == "gguf")
    reference = source.torch_model
    with load(tmp_path / "artifact") as model:
        pieces = model.artifact.manifest.tokenizer.pieces
        rows = model.tokenizer.encode([INPUT, "yes", f"{INPUT} and {INPUT}"])
        answers = model.generate_tokens(rows, max_new_tokens=12, min_new_tokens=12)
        assert isinstance(answers, list)
        suppress = list(range(pieces, source.architecture.vocab_size))
        for ids, answer in zip(rows, answers, strict=True):
            options = {
                "input_ids": torch.tensor([ids]),
                "suppress_tokens": suppress,
                "use_cache": False,  # with it transformers 5 fails on a deeper decoder
                "min_new_tokens": 12,
                "max_new_tokens": 12,
            }
            expected = reference.generate(**options, num_beams=1, do_sample=False)[0, 1:].tolist()
            if format_name != "gguf":  # its float16 table of gelu may decide a near tie otherwise
                assert list(answer.token_ids) == expected
            labels = torch.tensor([expected])
            with torch.inference_mode():
                logits = reference(input_ids=torch.tensor([ids]), labels=labels).logits
            exact = torch.log_softmax(logits, -1)[0].gather(-1, labels[0][:, None])[:, 0].numpy()
            [found] = model.score_tokens([ids], [expected])
            np.testing.assert_allclose(found, exact, atol=5e-2 if format_name == "gguf" else 1e-3)
            # CTranslate2 ends its beams by another rule, tested with its engine.
            if model.engine.supports_beams and format_name != "ctranslate2":
                beams = reference.generate(**options, num_beams=3, do_sample=False)[0, 1:].tolist()
                best = model.generate_tokens(
                    [ids], num_beams=3, max_new_tokens=12, min_new_tokens=12
                )
                assert isinstance(best, list)
                assert list(best[0].token_ids) == beams


@pytest.mark.parametrize("format_name", FORMATS)
def test_ids_without_a_piece_are_never_emitted(
    format_name: str, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    """The vocabulary is larger than the tokenizer: give those ids the highest logits."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = random_model(tied=False)
    weights = load_file(folder / "model.safetensors")
    source = SourceModel.open(folder)
    [target] = plan_targets(format_name, ("none",))
    publisher = Publisher(source)
    head = weights["lm_head.weight"]
    pieces = publisher.check.tokenizer.pieces
    assert pieces < len(head)
    weights["lm_head.weight"] = torch.cat([head[:pieces], 4 * head[: len(head) - pieces]])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    source = SourceModel.open(folder)
    ids = torch.tensor(publisher.check.tokenizer.encode([INPUT]))
    free = source.torch_model.generate(ids, max_new_tokens=20, min_new_tokens=20, num_beams=1)
    assert free.max() >= pieces, "unrestricted, the model would generate such ids"
    # A head four times as large makes rounding four times as large too.
    options = ExportOptions(max_error=0.2, mean_error=0.02)
    publish_all(Publisher(source, options), [target], tmp_path / "artifact")
    with load(tmp_path / "artifact") as model:
        for chosen in ({}, {"do_sample": True, "temperature": 5.0, "seed": 0}, {"num_beams": 2}):
            if chosen.get("num_beams") and not model.engine.supports_beams:
                continue
            answer = model.generate(INPUT, max_new_tokens=20, min_new_tokens=20, **chosen)
            assert max(answer.token_ids) < pieces


@pytest.mark.parametrize("format_name", FORMATS)
def test_quantized_artifacts_record_how_close_they_are(format_name: str, artifacts: Path) -> None:
    folder = artifacts / f"{format_name}-{'q8_0' if format_name == 'gguf' else 'int8'}"
    full = artifacts / f"{format_name}-{'f32' if format_name == 'gguf' else 'float32'}"
    with load(folder) as model, load(full) as exact:
        parity = model.artifact.manifest.parity
        assert 0 < parity["mean_error"] < 0.2
        assert parity["tokens"] > 100
        reference = exact.artifact.manifest.parity
        # An answer may differ from the source's only at a tie, to within both sides' errors.
        assert reference["greedy_identical"] >= parity["inputs"] - 1
        assert reference["largest_gap"] <= 2 * reference["tolerance"]["max_error"]
        assert reference["max_error"] < parity["max_error"]
        assert model.artifact.manifest.size < 0.5 * exact.artifact.manifest.size


def test_a_long_input_meets_every_distance_bucket(
    random_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = random_model(relative_attention_max_distance=40)
    source = SourceModel.open(folder)
    text = " ".join([INPUT] * 12)
    for format_name in FORMATS:
        output = tmp_path / format_name
        publish_all(Publisher(source), plan_targets(format_name, ("none",)), output)
        with load(output) as model:
            [ids] = model.tokenizer.encode([text])
            assert len(ids) > 200
            import torch

            expected = source.torch_model.generate(
                input_ids=torch.tensor([ids]),
                max_new_tokens=90,
                min_new_tokens=90,
                num_beams=1,
                do_sample=False,
                suppress_tokens=list(
                    range(model.artifact.manifest.tokenizer.pieces, source.architecture.vocab_size)
                ),
            )[0, 1:]
            answer = model.generate(text, max_new_tokens=90, min_new_tokens=90)
            assert list(answer.token_ids) == expected.tolist(), format_name


def test_a_tokenizer_s_own_limit_is_no_warning(
    random_model: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The check's longest text has more tokens than a model for short rows takes."""
    folder = random_model()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 8}))
    caplog.set_level(logging.WARNING, "transformers")
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        publish_all(
            Publisher(SourceModel.open(folder)), plan_targets("onnx", ("none",)), tmp_path / "onnx"
        )
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records
