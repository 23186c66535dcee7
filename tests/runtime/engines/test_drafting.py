"""Drafts from the input outside of a graph: what is drafted, and that no answer changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.runtime import load
from edge.runtime.engines.drafting import PromptLookup
from edge.runtime.model import Model
from edge.runtime.rows import read_rows

EOS = 1


@pytest.fixture(scope="module", params=["onnx-int8", "gguf-q8_0", "torchscript-float32"])
def model(artifacts: Path, request: pytest.FixtureRequest) -> Model:
    return load(artifacts / request.param)


@pytest.fixture(scope="module")
def texts(dataset: Path) -> list[str]:
    return [row.input for row in read_rows(dataset / "dev.jsonl")][:20]


@pytest.mark.parametrize(
    ("output", "room", "expected"),
    [
        ([0], 9, [5, 6, 7]),  # at the start: the beginning of the source
        ([0], 2, [5, 6]),  # no longer than the answer may be
        ([0, 8], 9, []),  # a token after the start token that the source begins otherwise
        ([0, 9, 6, 7], 9, [8, 6, 7]),  # what followed the last two tokens
        ([0, 4, 8, 6, 7], 9, [9]),  # the place whose third-last token is the same, up to eos
        ([0, 6, 9, 6], 9, []),  # only a single token was seen
        ([0, 30, 31, 32, 30, 31], 9, [32, 30, 31]),  # from the output itself
    ],
)
def test_a_draft_is_what_followed_the_last_two_tokens(
    output: list[int], room: int, expected: list[int]
) -> None:
    lookup = PromptLookup([5, 6, 7, 8, 6, 7, 9, EOS], 0, 3)
    assert lookup.draft(output, room, (EOS,)) == expected


def test_the_length_of_drafts_follows_what_agreed() -> None:
    lookup = PromptLookup([*range(10, 40), EOS], 0, 8)

    def length() -> int:
        return len(lookup.draft([0, 10, 11], 60, (EOS,)))

    assert length() == 8
    for drafted, agreed, following in ((8, 3, 3), (3, 3, 6), (6, 6, 8), (8, 0, 1), (0, 0, 1)):
        lookup.observe(drafted, agreed)
        assert length() == following


@pytest.mark.parametrize(
    "options", [{}, {"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}, {"stop": ("he",)}]
)
def test_a_stream_with_drafts_gives_the_same_text_in_fewer_steps(
    model: Model, texts: list[str], options: dict[str, object]
) -> None:
    steps = tokens = 0
    for text in texts:
        plain = model.generate(text, **options)
        with model.stream(text, prompt_lookup_num_tokens=6, **options) as stream:
            assert "".join(stream) == plain.text
        drafted = stream.result
        assert drafted.token_ids == plain.token_ids
        assert drafted.finish_reason == plain.finish_reason
        assert drafted.score == pytest.approx(plain.score, abs=1e-3)
        assert drafted.steps is not None
        steps, tokens = steps + drafted.steps, tokens + plain.output_tokens
    assert steps < (0.7 if not options else 1.01) * tokens


def test_beams_sampling_and_constraints_draft_nothing(model: Model, texts: list[str]) -> None:
    cases: list[dict[str, object]] = [
        {"do_sample": True, "seed": 3},
        {"choices": ("one", "two")},
        {"num_beams": 2},
    ]
    for options in cases[: 3 if model.engine.supports_beams else 2]:
        plain = model.generate(texts[0], **options)
        drafted = model.generate(texts[0], prompt_lookup_num_tokens=6, **options)
        assert (drafted.token_ids, drafted.steps) == (plain.token_ids, None)


def test_torchscript_in_8_bits_drafts_nothing(artifacts: Path, texts: list[str]) -> None:
    with load(artifacts / "torchscript-int8") as model:
        assert not model.drafts_from_input
        plain, drafted = (model.generate(texts[0], prompt_lookup_num_tokens=n) for n in (0, 6))
        with model.stream(texts[0], prompt_lookup_num_tokens=6) as stream:
            assert "".join(stream) == plain.text
        for answer in (drafted, stream.result):
            assert answer.token_ids == plain.token_ids
            assert answer.score == pytest.approx(plain.score, abs=1e-5)
            assert answer.steps is None


def test_a_batch_of_several_rows_is_answered_as_without_drafts(
    model: Model, texts: list[str]
) -> None:
    plain = model.generate(texts, batch_size=8)
    drafted = model.generate(texts, batch_size=8, prompt_lookup_num_tokens=6)
    assert [one.token_ids for one in drafted] == [one.token_ids for one in plain]
