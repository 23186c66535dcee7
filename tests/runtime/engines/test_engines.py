"""The engines with beam search, one by one: the options mean what they mean in transformers."""

from __future__ import annotations

import dataclasses
import functools
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
from edge.runtime.engines import ENGINES
from edge.runtime.engines.base import Engine, Vocabulary
from edge.runtime.errors import ArtifactError
from edge.runtime.options import GenerationOptions

ROWS = [[5, 9, 30, 31, 44, 7, 1], [12, 1], [1], [60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 1]]
FORMATS = ("onnx", "ctranslate2", "torchscript")
# Subclasses of SteppingEngine: plain greedy search is a loop inside of the model file, and all else
# steps from outside.
STEPPING = ("onnx", "torchscript")
FILES = {  # what is read when the engine is made
    "onnx": ("model.onnx",),
    "ctranslate2": ("model.bin",),
    "torchscript": ("model.ts",),
}
Publish = Callable[[SourceModel, str], Artifact]


@pytest.fixture(scope="module")
def source(random_model: Callable[..., Path]) -> SourceModel:
    # Scaled logits are flat enough for eos, penalties and minimum lengths to change answers.
    return SourceModel.open(random_model(seed=3, num_decoder_layers=1))


@pytest.fixture(scope="module", params=FORMATS)
def format_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def publish(tmp_path_factory: pytest.TempPathFactory) -> Publish:
    """Each artifact is written once, in whatever order pytest asks for the formats."""

    @functools.cache
    def write(source: SourceModel, format_name: str) -> Artifact:
        folder = tmp_path_factory.mktemp(format_name) / "artifact"
        Publisher(source).publish(Target(format_name, "float32"), folder)
        return Artifact.open(folder)

    return write


@pytest.fixture(scope="module")
def artifact(format_name: str, source: SourceModel, publish: Publish) -> Artifact:
    return publish(source, format_name)


@pytest.fixture(scope="module")
def engine(artifact: Artifact) -> Engine:
    return open_engine(artifact)


@pytest.fixture(scope="module")
def vocabulary(artifact: Artifact) -> Vocabulary:
    return Vocabulary.of(artifact)


@pytest.fixture(scope="module")
def reference(source: SourceModel, vocabulary: Vocabulary) -> TorchReference:
    return TorchReference(source, pieces=vocabulary.pieces)


@pytest.fixture(scope="module")
def trained_source(shared: Path) -> SourceModel:
    return SourceModel.open(shared / "models" / "disfl-tiny")


def open_engine(artifact: Artifact, **options: Any) -> Engine:
    return ENGINES.load(artifact.manifest.format)(artifact, **options)


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
    options: dict[str, Any], engine: Engine, reference: TorchReference
) -> None:
    chosen = GenerationOptions(**{"max_new_tokens": 16, **options})
    for row, found in zip(ROWS, engine.generate(ROWS, chosen), strict=True):
        [expected] = reference.generate([row], chosen)[0]
        assert found[0].token_ids == expected.token_ids
        assert found[0].finish_reason == expected.finish_reason
        assert found[0].score == pytest.approx(expected.score, abs=1e-3)


# CTranslate2 applies bans to logits and normalizes afterwards, and ends a row after a fixed number
# of finished hypotheses, which length penalties would rank otherwise: its beams are transformers'
# only without such options.
EVERY_BEAM: tuple[dict[str, Any], ...] = ({}, {"early_stopping": True})
EXACT_BEAM: tuple[dict[str, Any], ...] = ({"length_penalty": 2.0}, {"no_repeat_ngram_size": 2})


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        *((name, options) for name in FORMATS for options in EVERY_BEAM),
        *((name, options) for name in STEPPING for options in EXACT_BEAM),
    ],
    indirect=["format_name"],
    ids=str,
)
def test_beams_are_those_of_transformers(
    options: dict[str, Any], format_name: str, trained_source: SourceModel, publish: Publish
) -> None:
    artifact = publish(trained_source, format_name)
    engine = open_engine(artifact)
    reference = TorchReference(trained_source, pieces=Vocabulary.of(artifact).pieces)
    chosen = GenerationOptions(max_new_tokens=16, num_beams=3, **options)
    for [found], [expected] in zip(
        engine.generate(ROWS[:2], chosen), reference.generate(ROWS[:2], chosen), strict=True
    ):
        assert found.token_ids == expected.token_ids
        assert found.score == pytest.approx(expected.score, abs=1e-3)


def test_beams_come_best_first_with_scores_of_the_model(engine: Engine) -> None:
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


def test_log_probabilities_are_the_sources(engine: Engine, reference: TorchReference) -> None:
    targets = [[8, 12, 40, 1], [1], [9, 9, 9], [30, 1]]
    found = engine.score(ROWS, targets)
    for row, target, values in zip(ROWS, targets, found, strict=True):
        assert values.dtype == np.float32
        expected = reference.score([row], [target])[0]
        np.testing.assert_allclose(values, expected, atol=1e-3)


def test_ids_without_a_piece_are_never_emitted(engine: Engine, vocabulary: Vocabulary) -> None:
    assert vocabulary.pieces < vocabulary.size
    options = GenerationOptions(
        max_new_tokens=32, do_sample=True, temperature=50.0, top_k=0, seed=1, min_new_tokens=32
    )
    for group in engine.generate(ROWS * 8, options):
        assert max(group[0].token_ids) < vocabulary.pieces


def test_sampling_is_repeatable_by_seed(engine: Engine) -> None:
    options = GenerationOptions(
        max_new_tokens=12, do_sample=True, top_k=0, num_return_sequences=2, seed=7
    )
    first = engine.generate(ROWS, options)
    assert engine.generate(ROWS, options) == first
    assert engine.generate(ROWS, dataclasses.replace(options, seed=8)) != first
    assert all(len(group) == 2 and group[0].score >= group[1].score for group in first)


def test_top_k_of_one_is_greedy(engine: Engine) -> None:
    greedy = engine.generate(ROWS, GenerationOptions(max_new_tokens=8))
    drawn = engine.generate(ROWS, GenerationOptions(max_new_tokens=8, do_sample=True, top_k=1))
    assert [g[0].token_ids for g in drawn] == [g[0].token_ids for g in greedy]


def test_the_callback_sees_every_token_and_stops_its_row(engine: Engine) -> None:
    options = GenerationOptions(max_new_tokens=16)
    plain = [group[0] for group in engine.generate(ROWS, options)]
    seen: dict[int, list[int]] = {row: [] for row in range(len(ROWS))}

    def on_token(row: int, token: int) -> bool:
        seen[row].append(token)
        return row == 3 and len(seen[row]) == 2

    found = [group[0] for group in engine.generate(ROWS, options, on_token)]
    assert [one.token_ids for one in found[:3]] == [one.token_ids for one in plain[:3]]
    # Smaller batches and other loops round differently.
    assert [one.score for one in found[:3]] == pytest.approx(
        [one.score for one in plain[:3]], abs=1e-5
    )
    assert found[3].token_ids == plain[3].token_ids[:2]
    assert found[3].finish_reason == "stop"
    for row, hypothesis in enumerate(found):
        ended = [1] if hypothesis.finish_reason == "eos" else []
        assert seen[row] == [*hypothesis.token_ids, *ended]


def test_an_error_in_the_callback_comes_out(engine: Engine) -> None:
    def on_token(row: int, token: int) -> bool:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        engine.generate(ROWS, GenerationOptions(), on_token)


def test_long_inputs_are_not_cut(engine: Engine, reference: TorchReference) -> None:
    row = [*([5, 9, 30, 31, 44, 7] * 200), 1]  # beyond CTranslate2's default of 1024
    [found] = engine.score([row], [[8, 12, 1]])
    [expected] = reference.score([row], [[8, 12, 1]])
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("format_name", STEPPING, indirect=True)
def test_the_files_own_loop_and_the_stepping_search_agree(engine: Engine) -> None:
    options = GenerationOptions(max_new_tokens=12)
    looped = [group[0] for group in engine.generate(ROWS, options)]
    stepped = [group[0] for group in engine.generate(ROWS, options, lambda row, token: False)]
    for one, other in zip(looped, stepped, strict=True):
        assert one.token_ids == other.token_ids
        assert one.finish_reason == other.finish_reason
        assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize("format_name", STEPPING, indirect=True)
def test_several_tokens_at_once_are_those_one_by_one(engine: Any) -> None:
    tokens = np.array([[0, 8, 12, 40, 9]] * len(ROWS))
    whole = engine.start(ROWS).advance(tokens)
    state = engine.start(ROWS)
    parts = [
        state.advance(tokens[:, :1]),
        state.advance(tokens[:, 1:4]),
        state.advance(tokens[:, 4:]),
    ]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-4)


def test_several_threads_may_call_at_once(engine: Engine) -> None:
    options = GenerationOptions(max_new_tokens=8)
    expected = engine.generate(ROWS, options)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: engine.generate(ROWS, options), range(8)):
            assert found == expected


def test_closing_twice_does_no_harm(artifact: Artifact) -> None:
    engine = open_engine(artifact, threads=2)
    assert engine.threads == 2
    engine.close()
    engine.close()


@pytest.mark.parametrize(
    ("format_name", "name"),
    [(format_name, name) for format_name, names in FILES.items() for name in names],
    indirect=["format_name"],
)
@pytest.mark.parametrize("kept", [0, 3, 200, -100])
def test_a_damaged_file_is_one_line(
    name: str, kept: int, artifact: Artifact, tmp_path: Path
) -> None:
    damaged = with_damage(artifact, name, kept, tmp_path)
    with pytest.raises(ArtifactError) as caught:
        open_engine(damaged)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("format_name", ["onnx"], indirect=True)
@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx"])
@pytest.mark.parametrize("kept", [0, 3, 200, -100])
def test_a_damaged_file_that_is_read_later_is_one_line(
    name: str, kept: int, artifact: Artifact, tmp_path: Path
) -> None:
    """ONNX's graphs of single steps are opened when they are first needed."""
    damaged = with_damage(artifact, name, kept, tmp_path)
    with pytest.raises(ArtifactError) as caught:
        open_engine(damaged).score(ROWS, [[1]] * len(ROWS))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def with_damage(artifact: Artifact, name: str, kept: int, folder: Path) -> Artifact:
    """The artifact in another folder, with one file cut to `kept` bytes (below 0: without them)."""
    for path in artifact.folder.iterdir():
        os.link(path, folder / path.name)
    data = (artifact.folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(data[:kept][: len(data) - 2])
    return Artifact(folder, artifact.manifest)
