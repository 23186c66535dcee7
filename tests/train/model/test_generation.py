"""Which generation settings of transformers are honored, and training's evaluation with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.export.publish import ExportOptions, Publisher, Target
from edge.export.source import SourceModel
from edge.runtime import load
from edge.train.config import TrainConfig
from edge.train.data import Pair, tokenize
from edge.train.evaluate import evaluate
from edge.train.model.generation import KNOWN_FIELDS
from edge.train.model.opening import open_model
from samples import LETTER_PIECES, save_letter_model

TEXTS = ("the old bridge", "who? no, when!", "abc", "a longer text with many letters in it")


def test_every_field_of_transformers_is_honored_named_or_without_effect() -> None:
    from transformers import GenerationConfig

    config = GenerationConfig()
    fields = {name for name in {**vars(config), **config.to_dict()} if not name.startswith("_")}
    assert fields <= KNOWN_FIELDS


@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 30, "min_length": 12},
        {"num_beams": 3, "early_stopping": True, "max_new_tokens": 20},
        {
            "repetition_penalty": 1.7,
            "temperature": 0.0,
            "early_stopping": True,
            "length_penalty": 2.0,
            "output_scores": True,
            "use_cache": False,
            "max_new_tokens": 20,
        },
        {"eos_token_id": [1, LETTER_PIECES.index("T")]},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_training_evaluates_with_the_settings_of_the_folder(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save_letter_model(folder, tied=False, scaled=False, vocab_size=len(LETTER_PIECES))
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(ids | settings), encoding="utf-8")
    data = tmp_path / "rows.jsonl"
    data.write_text('{"input": "a", "target": "b"}\n', encoding="utf-8")
    config, _ = (
        TrainConfig(data=data, output=tmp_path / "out", model=str(folder), max_target_length=24)
        .resolved()
        .for_rows(1)
    )
    trainable = open_model(config, [], tmp_path)
    pairs = [Pair(text, "x") for text in TEXTS]
    rows, _ = tokenize(
        pairs, trainable.tokenizer, max_source_length=64, max_target_length=8, name="dev"
    )
    found = evaluate(
        trainable.model,
        trainable.tokenizer,
        rows,
        generation=trainable.generation,
        end_token_ids=trainable.end_token_ids,
    ).predictions
    trainable.model.save_pretrained(tmp_path / "saved")  # what transformers refuses shows here
    trainable.tokenizer.save_pretrained(tmp_path / "saved")
    for place in (folder, tmp_path / "saved"):
        publisher = Publisher(
            SourceModel.open(place),
            ExportOptions(generation={"max_new_tokens": 24})
            if not {"max_length", "max_new_tokens"} & {*settings}
            else None,
        )
        output = tmp_path / f"{place.name}-onnx"
        with load(publisher.publish(Target("onnx", "float32"), output).folder) as model:
            assert [one.text for one in model.generate(list(TEXTS))] == found
