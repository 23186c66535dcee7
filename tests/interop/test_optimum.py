"""Optimum's `ORTModelForSeq2SeqLM` with our graphs gives the same answers as transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.export.hub.engine import HubEngine
from edge.export.source import SourceModel
from edge.runtime.engines.base import Vocabulary
from edge.runtime.options import GenerationOptions
from interop_samples import SHAPES, TEXTS

_LENGTHS = {"max_new_tokens": 16, "min_new_tokens": 6}
OPTIONS = (
    {**_LENGTHS, "num_beams": 1, "do_sample": False},
    {**_LENGTHS, "num_beams": 4, "do_sample": False},
    {**_LENGTHS, "num_beams": 3, "num_return_sequences": 3, "length_penalty": 0.6},
)


def answers(
    baselines: Callable[..., Any], hub: Path, model: Path | None, scratch: Path
) -> dict[str, Any]:
    calls = {"hub": str(hub), "model": model and str(model), "texts": TEXTS, "options": OPTIONS}
    (scratch / "calls.json").write_text(json.dumps(calls))
    results: dict[str, Any] = baselines("run_optimum.py", scratch / "calls.json")
    return results


@pytest.mark.parametrize("shape", SHAPES)
def test_optimum_generates_what_torch_generates(
    shape: str,
    baselines: Callable[..., Any],
    random_model: Callable[..., Path],
    export_hub: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Token for token: greedy and beams, in a padded batch, by either pair of decoders."""
    model = random_model(**SHAPES[shape])
    results = answers(baselines, export_hub(model, "none"), model, tmp_path)
    assert len({len(ids) for ids in results["ids"]}) == len(TEXTS)
    expected = results["torch"]
    assert len({tuple(row) for row in expected[0]}) == len(TEXTS)  # answers depend on the input
    for how in ("merged", "pair", "moved"):
        assert results[how] == expected, how


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantized_graphs_answer_as_in_the_parity_check(
    quantization: str,
    baselines: Callable[..., Any],
    random_model: Callable[..., Path],
    export_hub: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Optimum's greedy answers are those of the engine that the parity check ran."""
    model = random_model(**SHAPES["flan-t5-small"])
    hub = export_hub(model, quantization)
    results = answers(baselines, hub, None, tmp_path)
    shape = SourceModel.open(model).architecture
    vocabulary = Vocabulary(
        size=shape.vocab_size,
        pieces=shape.vocab_size,  # Optimum may take an id without a piece
        pad=shape.pad_token_id,
        eos=shape.eos_token_id,
        start=shape.decoder_start_token_id,
    )
    engine = HubEngine(hub, shape, vocabulary, merged=True)
    found = engine.generate(results["ids"], GenerationOptions(**_LENGTHS))
    for how in ("merged", "pair", "moved"):
        for row, [hypothesis] in zip(results[how][0], found, strict=True):
            ids = [shape.decoder_start_token_id, *hypothesis.token_ids]
            ids += [shape.eos_token_id] * (hypothesis.finish_reason == "eos")
            assert row == ids + [shape.pad_token_id] * (len(row) - len(ids)), how


def test_names_and_types_are_those_of_optimums_export(
    baselines: Callable[..., Any],
    random_model: Callable[..., Path],
    export_hub: Callable[..., Path],
    tmp_path: Path,
) -> None:
    import onnxruntime as ort

    model = random_model(written_by=4)
    expected = baselines("names_of_optimum.py", model, tmp_path / "optimum")
    assert len(expected) == 4
    hub = export_hub(model, "none")
    for name, sides in expected.items():
        session = ort.InferenceSession(hub / name, providers=["CPUExecutionProvider"])
        sides_of_ours = (session.get_inputs(), session.get_outputs())
        for side, values in zip(sides, sides_of_ours, strict=True):
            assert [[one.name, one.type] for one in values] == side, name
