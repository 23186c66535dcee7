"""Texts to answers under guardrails: plan each input, run the engine, join, check, decode again.

`Model` owns what is used here (prompt, tokenizer, engine, limits); this is the order of the steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge.runtime.errors import EdgeError, InputTooLongError, OutputError, UsageError
from edge.runtime.generation import Generation, Timings, join
from edge.runtime.guardrails import Guardrails, OnLong, OutputCheck, check_on_long
from edge.runtime.options import GenerationOptions
from edge.runtime.text.chunking import split

if TYPE_CHECKING:
    from edge.runtime.model import Model

Fields = Mapping[str, object]
# How many hypotheses the second try of an answer that failed its check has.
_BEAMS, _SAMPLES = 4, 8
# No part is tried with more characters a token than this: pieces of text are not as long.
_MOST_CHARACTERS = 32


@dataclass(frozen=True)
class Call:
    """How one call's texts are to be answered.

    `before_batch` is called before each run of the engine; what it raises ends the call.
    """

    options: GenerationOptions
    guardrails: Guardrails
    on_long: OnLong
    batch_size: int
    output: OutputCheck | None = None
    before_batch: Callable[[], None] | None = None


@dataclass
class _Plan:
    """One input: the ids of its parts, or an answer or an error that needs no engine."""

    parts: list[list[int]]
    separators: list[str]
    truncated: bool = False
    ready: Generation | EdgeError | None = None


def answer_each(
    model: Model,
    texts: Sequence[str],
    fields: Fields | Sequence[Fields] | None,
    call: Call,
    *,
    strict: bool,
) -> list[Generation | EdgeError]:
    """An answer to each text, or the error that this text alone met; `strict` raises an input's
    error before anything runs.

    Raises:
        UsageError: something that concerns all texts.
    """
    started = time.perf_counter()
    plans = [
        _plan(model, text, own, call)
        for text, own in zip(texts, each_fields(texts, fields), strict=True)
    ]
    tokenize_ms = (time.perf_counter() - started) * 1000
    if strict:
        for plan in plans:
            if isinstance(plan.ready, EdgeError):
                raise plan.ready
    _run(model, plans, call.options, call, tokenize_ms)
    if call.output is not None:
        _check(model, plans, call.output, call)
    answers = [plan.ready for plan in plans]
    assert all(answer is not None for answer in answers)
    return answers  # type: ignore[return-value]


def each_fields(texts: Sequence[str], fields: Fields | Sequence[Fields] | None) -> Sequence[Fields]:
    """The prompt's fields of each text, types checked.

    Raises:
        UsageError: a text that is no str, or another number of fields than of texts.
    """
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f"a text must be a str, not {type(text).__name__}")
    if fields is None or isinstance(fields, Mapping):
        return [fields or {}] * len(texts)
    if len(fields) != len(texts):
        raise UsageError(f"{len(texts)} texts but {len(fields)} sets of fields")
    return fields


def _plan(model: Model, text: str, fields: Fields, call: Call) -> _Plan:
    check_on_long(call.on_long)
    try:
        [ids] = model.tokenizer.encode([model.prompted(text, fields)])
        limit = model.limits.max_input_tokens
        if len(ids) <= limit:
            return _Plan([ids], [])
        if call.on_long == "truncate":
            return _Plan([[*ids[: limit - 1], model.tokenizer.eos]], [], truncated=True)
        if call.on_long == "fallback":
            return _Plan([], [], ready=_fallback(call.guardrails, text, len(ids)))
        if call.on_long == "chunk":
            return _chunks(model, text, fields, len(ids), call.guardrails.max_parts)
        model.check_length(len(ids))
        raise AssertionError("an input over the limit passed its check")
    except EdgeError as error:
        return _Plan([], [], ready=error)


def _fallback(guardrails: Guardrails, text: str, length: int) -> Generation:
    return Generation(
        text=guardrails.fall_back(text),
        token_ids=(),
        score=0.0,
        finish_reason="fallback",
        input_tokens=length,
        truncated=False,
        timings=Timings(0.0, 0.0, 0.0),
    )


def _chunks(model: Model, text: str, fields: Fields, length: int, most: int) -> _Plan:
    limit = model.limits.max_input_tokens
    [empty] = model.tokenizer.encode([model.prompted("", fields)])
    room = limit - len(empty)

    def encode(part: str) -> list[int]:
        return model.tokenizer.encode([model.prompted(part, fields)])[0]

    parts = None
    if length <= most * limit:
        parts = split(
            text, lambda p: len(p) <= _MOST_CHARACTERS * limit and len(encode(p)) <= limit, most
        )
    if parts is None:
        raise InputTooLongError(
            f"the input has {length} tokens, more than {most} parts of {max(0, room)} (the limit"
            f" of {limit} less the prompt); shorten it"
        )
    separators = [gap if "\n" in gap else " " if gap else "" for _, gap in parts[:-1]]
    return _Plan([encode(part) for part, _ in parts], separators)


def _run(
    model: Model,
    plans: Sequence[_Plan],
    options: GenerationOptions,
    call: Call,
    tokenize_ms: float,
) -> None:
    """Answer the plans that need the engine; all their parts share batches."""
    waiting = [plan for plan in plans if plan.ready is None]
    rows = [ids for plan in waiting for ids in plan.parts]
    truncated = [plan.truncated for plan in waiting for _ in plan.parts]
    found = iter(
        model.run_rows(
            rows, truncated, options, call.batch_size, tokenize_ms, before_batch=call.before_batch
        )
    )
    for plan in waiting:
        plan.ready = join([next(found) for _ in plan.parts], plan.separators)


def _check(model: Model, plans: Sequence[_Plan], check: OutputCheck, call: Call) -> None:
    """Replace answers that fail the check by the next best that passes, or by an OutputError.

    What an answer's own alternatives don't offer is decoded once more: by beams, whose hypotheses
    are tried best first, or by several samples where the engine has no beams.
    """
    failed: list[tuple[_Plan, Generation, str]] = []
    for plan in plans:
        answer = plan.ready
        if not isinstance(answer, Generation) or (problem := check(answer.text)) is None:
            continue
        plan.ready = _passing(answer.alternatives, check)
        if plan.ready is None:
            failed.append((plan, answer, problem))
    again = [plan for plan, answer, _ in failed if answer.finish_reason != "fallback"]
    if again:
        _run(model, again, _careful(call.options, beams=model.engine.supports_beams), call, 0.0)
    for plan, answer, problem in failed:
        second = plan.ready if isinstance(plan.ready, Generation) else None
        found = _passing([second, *second.alternatives], check) if second is not None else None
        if found is None:
            plan.ready = OutputError(
                f"the answer does not pass its check: {problem}", raw_text=answer.text
            )
        else:
            wanted = max(0, call.options.num_return_sequences - 1)
            plan.ready = replace(
                found,
                timings=answer.timings + found.timings,
                alternatives=answer.alternatives[:wanted],
            )


def _passing(answers: Sequence[Generation], check: OutputCheck) -> Generation | None:
    for answer in answers:
        if check(answer.text) is None:
            return replace(answer, retried=True)
    return None


def _careful(options: GenerationOptions, *, beams: bool) -> GenerationOptions:
    if beams:
        width = max(_BEAMS, options.num_beams)
        return replace(options, do_sample=False, num_beams=width, num_return_sequences=width)
    return replace(
        options,
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        num_return_sequences=_SAMPLES,
        seed=options.seed or 0,
    )
