"""Draft heads: fitted to a model's answers, and without any effect on answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edge.export.api import export
from edge.export.draft.alignment import Edit, align, frequent_phrases
from edge.export.draft.fit import fit_draft_head
from edge.export.draft_head import DRAFT_HEAD_NAME, read_draft_head
from edge.runtime.errors import ModelError, OutputExistsError
from edge.runtime.model import load
from edge.runtime.rows import read_rows

EOS = 1


@pytest.mark.parametrize(
    ("source", "answer", "kept", "inserted"),
    [
        ([5, 6, 7, EOS], [5, 6, 7, EOS], [1, 1, 1, 1], [(), (), (), ()]),
        ([5, 6, 7, EOS], [6, 7, EOS], [0, 1, 1, 1], [(), (), (), ()]),
        ([5, 6, 7, EOS], [5, 8, 9, 7, EOS], [1, 0, 1, 1], [(), (), (8, 9), ()]),
        ([5, 6, EOS], [5, 6, 8, EOS], [1, 1, 1], [(), (), (8,)]),
        ([5, EOS], [EOS], [0, 1], [(), ()]),
        ([EOS], [8, EOS], [1], [(8,)]),
    ],
)
def test_edits_turn_the_source_into_the_answer(
    source: list[int], answer: list[int], kept: list[int], inserted: list[tuple[int, ...]]
) -> None:
    edit = align(source, answer)
    assert edit == Edit([bool(k) for k in kept], inserted)
    rebuilt: list[int] = []
    for token, keep, phrase in zip(source, edit.kept, edit.inserted, strict=True):
        rebuilt += [*phrase, *([token] if keep else [])]
    assert rebuilt == answer


def test_phrases_are_frequent_and_short() -> None:
    edits = [Edit([True], [phrase]) for phrase in ((3,), (2, 4), (2, 4), (9,) * 7, (9,) * 7, ())]
    assert frequent_phrases(edits, 10) == [(2, 4)]


@pytest.mark.parametrize("quantization", ["float32", "int8", "int4"])
def test_answers_are_those_of_plain_greedy_search_in_fewer_steps(
    drafted_model: Path, dataset: Path, tmp_path: Path, quantization: str
) -> None:
    [made] = export(drafted_model, tmp_path / "made", "onnx", quantization)
    tokens = steps = at_once = 0
    with load(made.folder) as model:
        for row in read_rows(dataset / "dev.jsonl"):
            plain = model.generate(row.input)
            drafted = model.generate(row.input, prompt_lookup_num_tokens=8)
            assert drafted.token_ids == plain.token_ids
            assert drafted.finish_reason == plain.finish_reason
            assert drafted.score == pytest.approx(plain.score, abs=1e-3)
            tokens += len(plain.token_ids)
            steps += drafted.steps or 0
            at_once += drafted.steps == 1
        text = read_rows(dataset / "dev.jsonl")[0].input
        for limits in ({"max_new_tokens": 3}, {"min_new_tokens": 30, "max_new_tokens": 33}):
            drafted = model.generate(text, prompt_lookup_num_tokens=8, **limits)
            assert drafted.token_ids == model.generate(text, **limits).token_ids
        beams = model.generate(text, num_beams=2, prompt_lookup_num_tokens=8)
        assert beams.token_ids == model.generate(text, num_beams=2).token_ids
    assert steps < 0.5 * tokens
    assert at_once >= 10  # of 60; without a head 3 to 6


def test_a_head_that_is_always_wrong_changes_no_answer(copy: Path, tmp_path: Path) -> None:
    head = read_draft_head(copy / DRAFT_HEAD_NAME)
    bias = np.zeros_like(head.output_bias)
    bias[0] = -1e4  # nothing is kept
    bias[-1] = 1e4  # a phrase before every token
    dataclasses.replace(head, output_bias=bias).save(copy / DRAFT_HEAD_NAME)
    [made] = export(copy, tmp_path / "made", "onnx", "int8")
    with load(made.folder) as model:
        for text in ("Who wrote no sorry who painted it?", "yes", "a b c d e f g h i j k l " * 4):
            drafted = model.generate(text, prompt_lookup_num_tokens=8)
            assert drafted.token_ids == model.generate(text).token_ids


def test_the_model_stays_as_it_is(drafted_model: Path, trained: Path) -> None:
    for path in trained.rglob("*"):
        if path.is_file():
            copied = drafted_model / path.relative_to(trained)
            assert copied.read_bytes() == path.read_bytes()
    with pytest.raises(OutputExistsError):
        fit_draft_head(drafted_model, Path("nowhere.jsonl"))


def test_a_head_of_another_model_is_refused(copy: Path, tmp_path: Path) -> None:
    head = read_draft_head(copy / DRAFT_HEAD_NAME)
    for field, what in (("weights_sha256", "weights"), ("tokenizer_sha256", "tokenizer")):
        other = dataclasses.replace(head, **{field: "0" * 64})
        other.save(copy / DRAFT_HEAD_NAME)
        with pytest.raises(ModelError, match=f"another model .the {what} differ"):
            export(copy, tmp_path / "made", "onnx", "int8")
    assert not (tmp_path / "made").exists()
