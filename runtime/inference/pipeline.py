"""Answers to texts under guardrails: encode, split long inputs, run, check, decode again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge.runtime.errors import ConstraintError, EdgeError, InputTooLongError, OutputError
from edge.runtime.generation import Generation, Timings, join
from edge.runtime.guardrails import Guardrails, OnLong, OutputCheck
from edge.runtime.inference.encoder import Fields, InputEncoder, fields_per_text
from edge.runtime.inference.runner import EngineRunner, milliseconds_since
from edge.runtime.options import GenerationOptions
from edge.runtime.text.chunking import split

# Hypotheses of the second try, after an answer failed its check.
_RETRY_BEAMS, _RETRY_SAMPLES = 4, 8
# Longer chunks are not even tokenized: no piece of text has as many characters.
_MAX_CHARS_PER_TOKEN = 32


@dataclass(frozen=True)
class Call:
    """How the texts of one call are answered.

    `before_batch` is called before each run of the engine; an exception ends the call.
    """

    options: GenerationOptions
    guardrails: Guardrails
    on_long: OnLong
    batch_size: int
    output: OutputCheck | None = None
    before_batch: Callable[[], None] | None = None


@dataclass
class _Plan:
    """One input: the ids of its chunks, or an answer or error that needs no engine."""

    chunks: list[list[int]]
    separators: list[str]
    truncated: bool = False
    result: Generation | EdgeError | None = None


def answer_each(
    encoder: InputEncoder,
    runner: EngineRunner,
    texts: Sequence[str],
    fields: Fields | Sequence[Fields] | None,
    call: Call,
    *,
    strict: bool,
) -> list[Generation | EdgeError]:
    """For each text its answer, or the error that concerns this text alone.

    Args:
        encoder: Encodes the texts.
        runner: Runs the engine.
        texts: The inputs.
        fields: Values of the prompt's fields, for all texts or for each.
        call: Options and guardrails of this call.
        strict: Raise the first input's error before the engine runs.

    Raises:
        UsageError: Something that concerns all texts.
        EdgeError: With `strict`, the error of an input.
    """
    started = time.perf_counter()
    plans = [
        _plan(encoder, text, values, call)
        for text, values in zip(texts, fields_per_text(texts, fields), strict=True)
    ]
    tokenize_ms = milliseconds_since(started)
    if strict:
        for plan in plans:
            if isinstance(plan.result, EdgeError):
                raise plan.result
    _run(runner, plans, call.options, call, tokenize_ms, strict=strict)
    if call.output is not None:
        _check(runner, plans, call.output, call)
    results = [plan.result for plan in plans if plan.result is not None]
    assert len(results) == len(plans)
    return results


def _plan(encoder: InputEncoder, text: str, fields: Fields, call: Call) -> _Plan:
    try:
        parts = call.guardrails.max_parts if call.on_long == "chunk" else 1
        ids, cut = encoder.tokenize_start(text, fields, parts=parts)
        if len(ids) <= encoder.limits.max_input_tokens and not cut:
            return _Plan([ids], [])
        if call.on_long == "truncate":
            return _Plan([encoder.truncate(ids)], [], truncated=True)
        if call.on_long == "fallback":
            return _Plan([], [], result=_fallback(call.guardrails, text, len(ids)))
        if call.on_long == "chunk":
            return _chunk(encoder, text, fields, len(ids), parts, cut=cut)
        encoder.check_length(len(ids), cut=cut)
        raise AssertionError("an input over the limit passed its check")
    except EdgeError as error:
        return _Plan([], [], result=error)


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


def _chunk(
    encoder: InputEncoder, text: str, fields: Fields, length: int, max_chunks: int, *, cut: bool
) -> _Plan:
    limit = encoder.limits.max_input_tokens

    def fits(chunk: str) -> bool:
        return (
            len(chunk) <= _MAX_CHARS_PER_TOKEN * limit
            and len(encoder.tokenize(chunk, fields)) <= limit
        )

    fits_parts = not cut and length <= max_chunks * limit
    chunks = split(text, fits, max_chunks) if fits_parts else None
    if chunks is None:
        chunk_size = max(0, limit - len(encoder.tokenize("", fields)))
        raise InputTooLongError(
            f"the input has {'over ' if cut else ''}{length} tokens, more than {max_chunks} parts"
            f" of {chunk_size} (the"
            f" limit of {limit} minus the prompt); shorten it"
        )
    separators = [gap if "\n" in gap else " " if gap else "" for _, gap in chunks[:-1]]
    return _Plan([encoder.tokenize(chunk, fields) for chunk, _ in chunks], separators)


def _run(
    runner: EngineRunner,
    plans: Sequence[_Plan],
    options: GenerationOptions,
    call: Call,
    tokenize_ms: float,
    *,
    strict: bool,
) -> None:
    """Answer the plans that need the engine; all their chunks share batches."""
    waiting = [plan for plan in plans if plan.result is None]
    try:
        found = runner.generate(
            [ids for plan in waiting for ids in plan.chunks],
            [plan.truncated for plan in waiting for _ in plan.chunks],
            options,
            batch_size=call.batch_size,
            tokenize_ms=tokenize_ms,
            before_batch=call.before_batch,
        )
    except ConstraintError as error:  # of one input; the others may have answers
        if strict:
            raise
        if len(waiting) == 1:
            waiting[0].result = error
        else:
            for plan in waiting:
                _run(runner, [plan], options, call, tokenize_ms, strict=False)
        return
    answers = iter(found)
    for plan in waiting:
        plan.result = join([next(answers) for _ in plan.chunks], plan.separators)


def _check(runner: EngineRunner, plans: Sequence[_Plan], check: OutputCheck, call: Call) -> None:
    """Keep only answers and alternatives that pass the check; without any, an OutputError.

    If none of an answer's sequences passes, the input is decoded once more: by beam search, whose
    hypotheses are tried best first, or by several samples if the engine has no beam search.
    """
    failed: list[tuple[_Plan, Generation, str]] = []
    for plan in plans:
        answer = plan.result
        if not isinstance(answer, Generation):
            continue
        plan.result, problem = _passing(answer, check)
        if problem is not None:
            if plan.result is None:
                failed.append((plan, answer, problem))
            else:
                plan.result = replace(plan.result, retried=True)
    retried = [plan for plan, answer, _ in failed if answer.finish_reason != "fallback"]
    if retried:
        options = _retry_options(call.options, beams=runner.engine.supports_beams)
        _run(runner, retried, options, call, 0.0, strict=False)
    for plan, answer, problem in failed:
        found = None
        if isinstance(plan.result, Generation):
            found, _ = _passing(plan.result, check)
        if found is None:
            plan.result = OutputError(
                f"the answer fails its check: {problem}", raw_text=answer.text
            )
        else:
            plan.result = replace(
                found,
                timings=answer.timings + found.timings,
                alternatives=found.alternatives[: call.options.num_return_sequences - 1],
                retried=True,
            )


def _passing(answer: Generation, check: OutputCheck) -> tuple[Generation | None, str | None]:
    """The best sequence that passes, with the others that do, and what is wrong with the first."""
    sequences = (replace(answer, alternatives=()), *answer.alternatives)
    problems = [check(one.text) for one in sequences]
    passing = [one for one, problem in zip(sequences, problems, strict=True) if problem is None]
    best = replace(passing[0], alternatives=tuple(passing[1:])) if passing else None
    return best, problems[0]


def _retry_options(options: GenerationOptions, *, beams: bool) -> GenerationOptions:
    if beams:
        width = max(_RETRY_BEAMS, options.num_beams)
        return replace(options, do_sample=False, num_beams=width, num_return_sequences=width)
    return replace(
        options,
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        num_return_sequences=_RETRY_SAMPLES,
        seed=options.seed or 0,
    )
