"""The model card that training writes beside the model."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import ModelCard

from edge.train.output.model_card import trained_card


def test_a_trained_model_has_a_card(trained: Path) -> None:
    card = ModelCard.load(trained / "README.md")
    assert card.data.library_name == "transformers"
    measured = {result.metric_name: result.metric_value for result in card.data.eval_results}
    record = json.loads((trained / "training.json").read_text())
    assert measured["Exact match"] == round(record["eval"]["exact_match"], 4)
    assert "edge export path/to/this/folder" in card.text
    assert str(trained.parent) not in card.content
    assert card.content == str(trained_card(record))


def test_a_card_for_the_hub_names_the_repository(trained: Path) -> None:
    record = json.loads((trained / "training.json").read_text())
    card = trained_card(record, "me/rewriter")
    assert "edge export me/rewriter" in card.text
    assert card.text.lstrip().startswith("# rewriter")
