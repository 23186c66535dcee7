"""The auxiliary loss of kept source tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edge.train.model.label_loss import LabelLoss
from edge.train.model.tagging import TaggingLoss, kept_tokens


@pytest.mark.parametrize(
    ("source", "target", "dropped"),
    [
        ("when did uh when was it built", "when was it built", "when did uh"),
        ("to to rome", "to rome", "to"),
        ("who is the king i mean the queen", "who is the queen", "king i mean the"),
        ("when was it built", "when was it built", ""),
        ("a b c", "x y", "a b c"),
        ("a b", "a x b", ""),
        ("", "x", ""),
    ],
)
def test_the_last_of_equal_tokens_is_kept(source: str, target: str, dropped: str) -> None:
    ids: dict[str, int] = {}
    tokens = [ids.setdefault(word, len(ids)) for word in source.split()]
    wanted = [ids.setdefault(word, len(ids)) for word in target.split()]
    kept = kept_tokens(tokens, wanted)
    assert len(kept) == len(tokens)
    words = source.split()
    assert [w for w, k in zip(words, kept, strict=True) if not k] == dropped.split()


def _batch() -> dict[str, Any]:
    return {
        "input_ids": torch.tensor([[5, 6, 5, 1], [7, 1, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "labels": torch.tensor([[5, 1, -100], [8, 7, 1]]),
    }


def test_padding_and_ignored_labels_do_not_count() -> None:
    loss = TaggingLoss()
    loss.prepare(_batch())
    encoded = torch.zeros(2, 4, 16)
    outputs = SimpleNamespace(encoder_last_hidden_state=encoded)
    assert loss(outputs).item() == pytest.approx(math.log(2))
    encoded[1, 2:] = 100.0
    assert loss(outputs).item() == pytest.approx(math.log(2))
    # Along the gradient, tokens 1 and 2 of the first row become dropped, the others kept.
    encoded.requires_grad_(True)
    loss(outputs).backward()
    assert encoded.grad is not None
    signs = torch.sign((encoded.grad * encoded.grad[0, 3]).sum(-1))
    assert signs.tolist() == [[-1, -1, 1, 1], [1, 1, 0, 0]]


def test_its_weight_counts_the_labels_of_micro_batches() -> None:
    batch = _batch()
    outputs = SimpleNamespace(
        logits=torch.randn(2, 3, 9), encoder_last_hidden_state=torch.zeros(2, 4, 16)
    )
    plain, tagged = LabelLoss(0.0), LabelLoss(0.0, tagging_weight=0.5)
    tagged.prepare(batch)
    labels = batch["labels"]
    added = tagged(outputs, labels, 10) - plain(outputs, labels, 10)
    assert added.item() == pytest.approx(0.5 * math.log(2) * 5 / 10, rel=1e-5)


def test_a_training_with_it_ends_with_an_ordinary_model(
    tmp_path: Path, edge: Callable[..., Any], assert_refused: Callable[..., str]
) -> None:
    from transformers import T5ForConditionalGeneration

    data = tmp_path / "rows.jsonl"
    data.write_text(
        "".join(f'{{"input": "uh what is {n}", "target": "what is {n}"}}\n' for n in range(60))
    )
    command = ("train", data, "--from-scratch", "tiny", "--dev-ratio", 0.2, "--epochs", 1)
    command = (*command, "--max-target-length", 8, "--threads", 1, "--output")
    assert "--tagging-weight" in assert_refused(*command, tmp_path / "no", "--tagging-weight", -1)
    tagged, plain = tmp_path / "tagged", tmp_path / "plain"
    assert edge(*command, tagged, "--tagging-weight", 0.5).status == 0
    assert edge(*command, plain).status == 0
    models = [T5ForConditionalGeneration.from_pretrained(folder) for folder in (tagged, plain)]
    states = [model.state_dict() for model in models]
    assert states[0].keys() == states[1].keys()
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
