"""Guardrails: long inputs, caps, the prefix, checked answers and the conservative profile."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.runtime import Guardrails, JsonOutput, Model, OutputError, RegexOutput, load
from edge.runtime.errors import EdgeError, InputTooLongError, UsageError
from edge.runtime.generation import Generation
from edge.runtime.rows import Prompt
from edge.runtime.text.chunking import split

SENTENCES = (
    "When was the uh the old bridge of Verona built?",
    "Who wrote no sorry who painted the portrait?",
    "How many people, I mean, how many families lived in Rome?",
)
LIMIT = 20  # tokens: one of the sentences, never two


@pytest.fixture(scope="module")
def model(artifacts: Path) -> Iterator[Model]:
    limits = Guardrails(max_input_tokens=LIMIT, max_new_tokens=40)
    with load(artifacts / "onnx-float32", guardrails=limits) as loaded:
        yield loaded


# -- long inputs ---------------------------------------------------------------------------------


def test_a_long_text_is_split_at_sentence_ends_and_loses_nothing() -> None:
    text = 'One two. "Three four?" Five!\n\nSix seven eight nine. Incomprehensibilities 東京。京都'
    for size in (4, 10, 14, 24, 200):
        parts = split(text, lambda part, size=size: len(part) <= size, 100)  # type: ignore[misc]
        assert parts is not None
        assert "".join(part + gap for part, gap in parts) == text
        assert all(0 < len(part) <= size for part, _ in parts)
    parts = split(text, lambda part: len(part) <= 24, 100)
    assert parts is not None
    assert [part for part, _ in parts][:2] == ['One two. "Three four?"', "Five!"]
    assert split(text, lambda part: len(part) <= 10, 3) is None
    assert split(text, lambda part: False, 100) is None


def test_splitting_a_huge_text_tries_few_texts() -> None:
    tried = []

    def fits(part: str) -> bool:
        tried.append(len(part))
        return len(part) <= 1000

    assert len(split("word " * 20_000, fits, 1000) or ()) == 100
    assert len(tried) < 3000


def test_chunks_are_answered_one_by_one_and_joined(model: Model) -> None:
    whole = model.generate(" ".join(SENTENCES), on_long="chunk")
    alone = model.generate(list(SENTENCES))
    assert whole.text == " ".join(answer.text for answer in alone)
    assert whole.parts == len(SENTENCES)
    assert whole.input_tokens == sum(answer.input_tokens for answer in alone)
    assert whole.token_ids == tuple(token for answer in alone for token in answer.token_ids)
    assert min(a.score for a in alone) <= whole.score <= max(a.score for a in alone)
    assert whole.output_tokens == sum(answer.output_tokens for answer in alone)
    paragraphs = model.generate("\n\n".join(SENTENCES), on_long="chunk")
    assert paragraphs.text == "\n\n".join(answer.text for answer in alone)


def test_chunking_has_an_end(model: Model) -> None:
    with pytest.raises(InputTooLongError, match="64 parts"):
        model.generate("word " * 20_000, on_long="chunk")


def test_a_fallback_answers_what_is_too_long(model: Model, artifacts: Path) -> None:
    long = " ".join(SENTENCES)
    with pytest.raises(UsageError, match="no fallback is set"):
        model.generate(long, on_long="fallback")
    rails = Guardrails(max_input_tokens=LIMIT, on_long="fallback", fallback=lambda text: text[:4])
    with load(artifacts / "onnx-float32", guardrails=rails) as guarded:
        answer, short = guarded.generate([long, SENTENCES[0]])
        assert (answer.text, answer.finish_reason) == ("When", "fallback")
        assert short.text == model.generate(SENTENCES[0]).text
    with pytest.raises(UsageError, match="Known: echo, empty"):
        Guardrails(fallback="echoes")
    with pytest.raises(UsageError, match="needs a fallback"):
        Guardrails(on_long="fallback")


def test_lower_limits_than_the_artifacts(model: Model) -> None:
    with pytest.raises(InputTooLongError, match=f"takes {LIMIT}"):
        model.generate(" ".join(SENTENCES))
    assert model.generate(" ".join(SENTENCES), on_long="truncate").input_tokens == LIMIT
    assert model.defaults.max_new_tokens == 40
    with pytest.raises(UsageError, match="limit is 40"):
        model.generate("yes", max_new_tokens=41)


def test_each_text_meets_its_own_error(model: Model) -> None:
    good, bad = model.generate_each([SENTENCES[0], " ".join(SENTENCES)])
    assert isinstance(good, Generation)
    assert isinstance(bad, InputTooLongError)
    with pytest.raises(UsageError):
        model.generate_each(["yes"], num_beam=2)


# -- the prefix ----------------------------------------------------------------------------------


def test_the_prefix_is_there_once(model: Model) -> None:
    model.prompt = Prompt("rewrite {kind}: {input}")
    try:
        expected = "rewrite now: who was it"
        for text in ("who was it", expected):
            assert model.encoder.apply_prompt(text, {"kind": "now"}) == expected
        assert model.encoder.apply_prompt("rewrite", {"kind": "now"}) == "rewrite now: rewrite"
    finally:
        model.prompt = Prompt()


# -- checked answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["onnx-float32", "gguf-f32"])
def test_an_answer_that_fails_its_check_is_decoded_again(artifacts: Path, name: str) -> None:
    with load(artifacts / name) as loaded:
        first = loaded.generate(SENTENCES[2])
        assert loaded.generate(SENTENCES[2], output=RegexOutput(r".+")).retried is False
        other = loaded.generate(
            SENTENCES[2], output=lambda text: "the same" if text == first.text else None
        )
        assert other.retried
        assert other.text != first.text
        assert other.timings.generate_ms > 0
        with pytest.raises(OutputError, match="does not match") as caught:
            loaded.generate(SENTENCES[2], output=RegexOutput(r"\d+"))
        assert caught.value.raw_text == first.text


def test_alternatives_pass_the_check_too(model: Model) -> None:
    def allowing(texts: set[str]) -> Callable[[str], str | None]:
        return lambda text: None if text in texts else "another"

    several = {"num_beams": 4, "num_return_sequences": 4}
    free = model.generate(SENTENCES[2], **several)
    texts = [free.text, *(other.text for other in free.alternatives)]
    assert len(set(texts)) == 4
    for allowed in ({0, 2}, {1, 3}, {3}, {0, 1, 2, 3}):
        check = allowing({texts[place] for place in allowed})
        answer = model.generate(SENTENCES[2], output=check, **several)
        found = [answer.text, *(other.text for other in answer.alternatives)]
        assert found == [texts[place] for place in sorted(allowed)]
        assert answer.retried is (0 not in allowed)
        assert not any(other.alternatives for other in answer.alternatives)


def test_alternatives_of_a_second_try_pass_the_check_too(model: Model) -> None:
    pair = {"num_beams": 2, "num_return_sequences": 2}
    free = model.generate(SENTENCES[2], **pair)
    refused = {free.text, *(other.text for other in free.alternatives)}
    answer = model.generate(
        SENTENCES[2], output=lambda text: "refused" if text in refused else None, **pair
    )
    assert answer.retried
    assert len(answer.alternatives) <= 1
    assert refused.isdisjoint([answer.text, *(other.text for other in answer.alternatives)])


def test_one_bad_answer_does_not_spoil_a_batch(model: Model) -> None:
    texts = list(SENTENCES)
    wanted = model.generate(texts[1]).text
    answers = model.generate_each(texts, output=lambda t: None if t == wanted else "another")
    assert [isinstance(answer, OutputError) for answer in answers] == [True, False, True]


def test_json_schemas() -> None:
    check = JsonOutput({"type": "object", "required": ["a"], "properties": {"a": {"minimum": 3}}})
    assert check('{"a": 3}') is None
    assert "at $.a" in (check('{"a": 2}') or "")
    assert "required" in (check("{}") or "")
    for text in ("{", "NaN", "[" * 100_000, ""):
        assert "not JSON" in (check(text) or "")
    with pytest.raises(UsageError, match="invalid JSON Schema"):
        JsonOutput({"type": "objekt"})
    with pytest.raises(UsageError, match="unresolvable reference"):
        JsonOutput({"$ref": "http://127.0.0.1:9/schema.json"})("1")
    with pytest.raises(UsageError, match="regular expression"):
        RegexOutput("(")


# -- profile, threads, processes -----------------------------------------------------------------


@pytest.mark.parametrize(("name", "beams"), [("onnx-float32", 3), ("gguf-f32", 1)])
def test_the_conservative_profile(artifacts: Path, name: str, beams: int) -> None:
    with load(artifacts / name, guardrails=Guardrails(profile="conservative")) as loaded:
        assert loaded.defaults.num_beams == beams
        assert loaded.defaults.do_sample is (beams == 1)
        assert loaded.defaults.repetition_penalty == 1.1
        assert loaded.generate(SENTENCES[0]).text


@pytest.mark.alone
def test_awaiting_answers_leaves_the_event_loop_free(model: Model) -> None:
    async def work() -> tuple[list[Generation], int, list[str]]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        answers = await asyncio.gather(*(model.agenerate(text) for text in SENTENCES))
        counting.cancel()
        return answers, turns, [piece async for piece in model.astream(SENTENCES[0])]

    answers, turns, pieces = asyncio.run(work())
    assert [a.text for a in answers] == [a.text for a in model.generate(list(SENTENCES))]
    assert turns > 10
    assert "".join(pieces) == answers[0].text
    assert len(pieces) > 1


def test_the_gil_is_free_while_an_engine_computes(float_artifact: Path) -> None:
    import threading

    with load(float_artifact) as loaded:
        loaded.generate("yes")
        done = threading.Event()
        thread = threading.Thread(
            target=lambda: (loaded.generate([SENTENCES[0]] * 64, min_new_tokens=40), done.set())
        )
        thread.start()
        longest, last = 0.0, time.perf_counter()
        while not done.is_set():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
            time.sleep(0.001)
        thread.join()
        # A held GIL would have stopped this loop for the whole of a batch.
        assert longest < 0.25


def _in_child(name: str, queue: Any) -> None:
    try:
        _MODELS[name].generate("yes")
    except EdgeError as error:
        queue.put(str(error))


_MODELS: dict[str, Model] = {}


def test_a_model_refuses_to_work_in_a_forked_process(float_artifact: Path) -> None:
    context = multiprocessing.get_context("fork")
    with load(float_artifact) as loaded:
        expected = loaded.generate("yes").text
        _MODELS["one"] = loaded
        queue = context.Queue()
        child = context.Process(target=_in_child, args=("one", queue))
        child.start()
        assert "forked" in queue.get(timeout=20)
        child.join(20)
        assert child.exitcode == 0
        assert loaded.generate("yes").text == expected
        _MODELS.clear()


# -- the command line ----------------------------------------------------------------------------


def test_guardrails_on_the_command_line(
    edge: Callable[..., Any], assert_refused: Callable[..., str], artifacts: Path, tmp_path: Path
) -> None:
    folder = artifacts / "onnx-float32"
    text = " ".join(SENTENCES)
    limit = ("--max-input-tokens", LIMIT)
    joined = edge("run", folder, text, *limit, "--on-long", "chunk")
    assert joined.status == 0
    assert joined.out.count("?") >= 3
    echoed = edge("run", folder, text, *limit, "--on-long", "fallback")
    assert echoed.out.strip() == text
    assert "does not match" in assert_refused(
        "run", folder, SENTENCES[0], "--output-regex", r"\d+", status=1
    )
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object"}))
    assert "not JSON" in assert_refused(
        "run", folder, SENTENCES[0], "--output-schema", schema, status=1
    )
    assert_refused("run", folder, "x", "--output-schema", tmp_path / "none.json")
    assert_refused("run", folder, "x", "--output-schema", schema, "--output-regex", "x")


def test_half_a_surrogate_pair_is_no_text(model: Model) -> None:
    bad, good = model.generate_each(["a \ud800", SENTENCES[0]])
    assert isinstance(bad, UsageError)
    assert isinstance(good, Generation)
