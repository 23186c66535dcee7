"""The CTranslate2 engine: the options mean what they mean in transformers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.export.publish import Publisher, Target
from edge.export.reference import TorchReference
from edge.export.source import SourceModel
from edge.runtime.artifact import Artifact
from edge.runtime.engines.ctranslate2 import CTranslate2Engine
from edge.runtime.errors import ArtifactError
from edge.runtime.options import GenerationOptions

ROWS = [[5, 9, 30, 31, 44, 7, 1], [12, 1], [1], [60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 1]]


@pytest.fixture(scope="module")
def source(random_model: Callable[..., Path]) -> SourceModel:
    # Scaled logits are flat enough for eos, penalties and minimum lengths to change answers.
    return SourceModel.open(random_model(seed=3, num_decoder_layers=1))


@pytest.fixture(scope="module")
def artifact(source: SourceModel, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("ctranslate2") / "artifact"
    Publisher(source).publish(Target("ctranslate2", "float32"), folder)
    return Artifact.open(folder)


@pytest.fixture(scope="module")
def engine(artifact: Artifact) -> CTranslate2Engine:
    return CTranslate2Engine(artifact)


@pytest.fixture(scope="module")
def reference(source: SourceModel, engine: CTranslate2Engine) -> TorchReference:
    return TorchReference(source, pieces=engine.vocabulary.pieces)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_new_tokens": 1},
        {"max_new_tokens": 3},
        {"min_new_tokens": 12},
        {"min_new_tokens": 12, "max_new_tokens": 12},
        {"repetition_penalty": 1.8},
        {"no_repeat_ngram_size": 2},
        {"length_penalty": 0.0},
    ],
    ids=str,
)
def test_options_mean_what_they_mean_in_transformers(
    options: dict[str, Any], engine: CTranslate2Engine, reference: TorchReference
) -> None:
    chosen = GenerationOptions(**{"max_new_tokens": 16, **options})
    for row, found in zip(ROWS, engine.generate(ROWS, chosen), strict=True):
        [expected] = reference.generate([row], chosen)[0]
        assert found[0].token_ids == expected.token_ids
        assert found[0].finish_reason == expected.finish_reason
        assert found[0].score == pytest.approx(expected.score, abs=1e-3)


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}], ids=str)
def test_beams_are_those_of_transformers(
    options: dict[str, Any], shared: Path, tmp_path: Path
) -> None:
    source = SourceModel.open(shared / "models" / "disfl-tiny")
    Publisher(source).publish(Target("ctranslate2", "float32"), tmp_path / "artifact")
    engine = CTranslate2Engine(Artifact.open(tmp_path / "artifact"))
    reference = TorchReference(source, pieces=engine.vocabulary.pieces)
    chosen = GenerationOptions(max_new_tokens=16, num_beams=3, **options)
    for [found], [expected] in zip(
        engine.generate(ROWS[:2], chosen), reference.generate(ROWS[:2], chosen), strict=True
    ):
        assert found.token_ids == expected.token_ids
        assert found.score == pytest.approx(expected.score, abs=1e-3)


def test_beams_come_best_first_with_scores_of_the_model(engine: CTranslate2Engine) -> None:
    options = GenerationOptions(
        max_new_tokens=8, num_beams=4, num_return_sequences=3, length_penalty=0.0
    )
    for row, group in zip(ROWS, engine.generate(ROWS, options), strict=True):
        assert len({hypothesis.token_ids for hypothesis in group}) == 3
        scores = [hypothesis.score for hypothesis in group]
        for hypothesis in group:
            ids = [*hypothesis.token_ids, *([1] if hypothesis.finish_reason == "eos" else [])]
            total = float(engine.score([row], [ids])[0].sum())
            assert hypothesis.score == pytest.approx(total, abs=1e-4)
        assert scores == pytest.approx(sorted(scores, reverse=True), abs=0.1)


def test_log_probabilities_are_the_sources(
    engine: CTranslate2Engine, reference: TorchReference
) -> None:
    targets = [[8, 12, 40, 1], [1], [9, 9, 9], [30, 1]]
    found = engine.score(ROWS, targets)
    for row, target, values in zip(ROWS, targets, found, strict=True):
        assert values.dtype == np.float32
        expected = reference.score([row], [target])[0]
        np.testing.assert_allclose(values, expected, atol=1e-3)


def test_ids_without_a_piece_are_never_emitted(engine: CTranslate2Engine) -> None:
    assert engine.vocabulary.pieces < engine.vocabulary.size
    options = GenerationOptions(
        max_new_tokens=32, do_sample=True, temperature=50.0, top_k=0, seed=1, min_new_tokens=32
    )
    for group in engine.generate(ROWS * 8, options):
        assert max(group[0].token_ids) < engine.vocabulary.pieces


def test_sampling_is_repeatable_by_seed(engine: CTranslate2Engine) -> None:
    options = GenerationOptions(
        max_new_tokens=12, do_sample=True, top_k=0, num_return_sequences=2, seed=7
    )
    first = engine.generate(ROWS, options)
    assert engine.generate(ROWS, options) == first
    assert engine.generate(ROWS, dataclasses.replace(options, seed=8)) != first
    assert all(len(group) == 2 and group[0].score >= group[1].score for group in first)


def test_top_k_of_one_is_greedy(engine: CTranslate2Engine) -> None:
    greedy = engine.generate(ROWS, GenerationOptions(max_new_tokens=8))
    drawn = engine.generate(ROWS, GenerationOptions(max_new_tokens=8, do_sample=True, top_k=1))
    assert [g[0].token_ids for g in drawn] == [g[0].token_ids for g in greedy]


def test_the_callback_sees_every_token_and_stops_its_row(engine: CTranslate2Engine) -> None:
    options = GenerationOptions(max_new_tokens=16)
    plain = [group[0] for group in engine.generate(ROWS, options)]
    seen: dict[int, list[int]] = {row: [] for row in range(len(ROWS))}

    def on_token(row: int, token: int) -> bool:
        seen[row].append(token)
        return row == 3 and len(seen[row]) == 2

    found = [group[0] for group in engine.generate(ROWS, options, on_token)]
    assert found[:3] == plain[:3]
    assert found[3].token_ids == plain[3].token_ids[:2]
    assert found[3].finish_reason == "stop"
    for row, hypothesis in enumerate(found):
        ended = [1] if hypothesis.finish_reason == "eos" else []
        assert seen[row] == [*hypothesis.token_ids, *ended]


def test_an_error_in_the_callback_comes_out(engine: CTranslate2Engine) -> None:
    def on_token(row: int, token: int) -> bool:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        engine.generate(ROWS, GenerationOptions(), on_token)


def test_long_inputs_are_not_cut(engine: CTranslate2Engine, reference: TorchReference) -> None:
    row = [*([5, 9, 30, 31, 44, 7] * 200), 1]  # beyond CTranslate2's default of 1024
    [found] = engine.score([row], [[8, 12, 1]])
    [expected] = reference.score([row], [[8, 12, 1]])
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_several_threads_may_call_at_once(engine: CTranslate2Engine) -> None:
    options = GenerationOptions(max_new_tokens=8)
    expected = engine.generate(ROWS, options)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: engine.generate(ROWS, options), range(8)):
            assert found == expected


def test_closing_twice_does_no_harm(artifact: Artifact) -> None:
    engine = CTranslate2Engine(artifact, threads=2)
    assert engine.threads == 2
    engine.close()
    engine.close()


@pytest.mark.parametrize("name", ["model.bin", "config.json"])
@pytest.mark.parametrize("kept", [0, 3, 200, -100])
def test_a_damaged_file_is_one_line(
    name: str, kept: int, artifact: Artifact, tmp_path: Path
) -> None:
    for path in artifact.folder.iterdir():
        os.link(path, tmp_path / path.name)
    data = (artifact.folder / name).read_bytes()
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(b"" if not kept else data[:kept][: len(data) - 2])
    with pytest.raises(ArtifactError) as caught:
        CTranslate2Engine(Artifact(tmp_path, artifact.manifest))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
