"""Distillation into fewer decoder layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge.runtime.options import GenerationOptions
from edge.train.data import Pair
from edge.train.model.distillation import cut_decoder, evenly_spaced, teacher_pairs
from edge.train.model.loading import load_pretrained

pytestmark = pytest.mark.usefixtures("one_torch_thread")
ModelFactory = Callable[..., Path]


def test_layers_are_evenly_spaced() -> None:
    assert evenly_spaced(12, 4) == [0, 4, 7, 11]
    assert evenly_spaced(8, 2) == [0, 7]
    assert evenly_spaced(6, 1) == [0]
    for layers in range(2, 25):
        for wanted in range(1, layers):
            kept = evenly_spaced(layers, wanted)
            assert len(set(kept)) == wanted
            assert kept == sorted(kept)
            assert kept[0] == 0


def test_a_cut_decoder_is_a_complete_model(random_model: ModelFactory, tmp_path: Path) -> None:
    """Saved and loaded again it answers the same, with its key-value cache and without."""
    trainable = load_pretrained(str(random_model(tied=False, num_decoder_layers=4)))
    teacher = cut_decoder(trainable, 2)
    student: Any = trainable.model.eval()
    assert (len(student.decoder.block), len(teacher.decoder.block)) == (2, 4)  # type: ignore[arg-type]
    last: Any = student.decoder.block[1].layer[0].SelfAttention.q.weight
    assert torch.equal(last, teacher.decoder.block[3].layer[0].SelfAttention.q.weight)  # type: ignore[index, union-attr]
    student.save_pretrained(tmp_path)
    trainable.tokenizer.save_pretrained(tmp_path)
    again: Any = load_pretrained(str(tmp_path)).model.eval()
    ids = torch.tensor([[5, 6, 7, 1]])
    options = {"max_new_tokens": 8, "do_sample": False, "num_beams": 1}
    answers = [
        model.generate(ids, use_cache=cached, **options).tolist()
        for model in (student, again)
        for cached in (True, False)
    ]
    assert all(answer == answers[0] for answer in answers)


def test_the_teacher_answers_with_the_given_settings_alone(random_model: ModelFactory) -> None:
    """Not with what else the model's own generation settings say, and without sampling."""
    trainable = load_pretrained(str(random_model(tied=False)))
    teacher: Any = trainable.model.eval()
    pairs = [Pair(f"what is the river {n}", "x") for n in range(5)]

    def answers(**options: Any) -> list[str]:
        found = teacher_pairs(
            teacher,
            trainable.tokenizer,
            pairs,
            generation=GenerationOptions(**options),
            max_source_length=64,
            max_target_length=12,
            batch_size=2,
        )
        return [pair.target for pair in found]

    plain = answers(max_new_tokens=100)
    assert plain
    assert answers(max_new_tokens=100, do_sample=True, num_return_sequences=2) == plain
    assert answers(max_new_tokens=100, no_repeat_ngram_size=1) != plain
    assert answers(max_new_tokens=2, min_new_tokens=2) != plain
    state = torch.random.get_rng_state()
    teacher.generation_config.no_repeat_ngram_size = 1
    teacher.generation_config.repetition_penalty = 5.0
    assert answers(max_new_tokens=100) == plain
    assert torch.equal(torch.random.get_rng_state(), state)


def test_distilling_reports_accuracy_against_depth(
    random_model: ModelFactory,
    tmp_path: Path,
    edge: Callable[..., Any],
    assert_refused: Callable[..., str],
) -> None:
    data, output = tmp_path / "rows.jsonl", tmp_path / "out"
    rows = [{"input": f"what is the river {n}", "target": "a river"} for n in range(60)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Not more than encoder layers: transformers sizes the cache of `generate` by these.
    base = random_model(num_layers=3, num_decoder_layers=3)
    options = ("--model", base, "--dev-ratio", 0.2, "--max-target-length", 10, "--threads", 1)
    line = assert_refused("train", data, "--output", output, *options, "--decoder-layers", 3)
    assert "choose from 1 to 2" in line
    full = tmp_path / "full"
    learn = ("--epochs", 8, "--batch-size", 8, "--learning-rate", 3e-3)
    assert edge("train", data, "--output", full, *options, *learn).status == 0
    ended = edge(
        "train", data, "--output", output, "--model", full, *options[2:], *learn,
        "--decoder-layers", 1,
    )  # fmt: skip
    assert ended.status == 0, ended
    assert "Accuracy against decoder depth" in ended.out
    record = json.loads((output / "training.json").read_text())
    depth = {row["model"]: row for row in record["depth"]}
    assert {name: row["decoder_layers"] for name, row in depth.items()} == {
        "full": 3,
        "cut, not yet trained": 1,
        "distilled": 1,
    }
    assert depth["distilled"]["eval_loss"] < depth["cut, not yet trained"]["eval_loss"]
    assert json.loads((output / "config.json").read_text())["num_decoder_layers"] == 1
