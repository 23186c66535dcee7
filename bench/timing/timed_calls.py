"""Timed calls of `Model.generate`, from text to text, as made in the engine's process."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from edge.bench.timing.energy import EnergyMeter
from edge.bench.timing.interleaved import garbage_collection_paused
from edge.runtime.generation import Generation
from edge.runtime.model import Model

# (text, the prompt's fields) of each input of a call.
Call = Sequence[tuple[str, Mapping[str, object]]]


@dataclass(frozen=True)
class TimedCalls:
    """What calls took: lists with one value per call.

    Attributes:
        ms: milliseconds of each call; the other `*_ms` are parts of it.
        tokenize_ms: as `edge.runtime.generation.Timings`.
        generate_ms: as `edge.runtime.generation.Timings`.
        detokenize_ms: as `edge.runtime.generation.Timings`.
        first_ms: milliseconds of the same call with answers of one token.
        first_generate_ms: of that call, what `generate_ms` is of the whole one.
        new_tokens: tokens of all of the call's answers, eos included.
        longest: tokens of the longest of them.
        seconds: from the start of the first call to the end of the last.
        joules: energy of the processor meanwhile; None if it can't be read.
    """

    ms: list[float]
    tokenize_ms: list[float]
    generate_ms: list[float]
    detokenize_ms: list[float]
    first_ms: list[float]
    first_generate_ms: list[float]
    new_tokens: list[int]
    longest: list[int]
    seconds: float
    joules: float | None

    def as_json(self) -> dict[str, Any]:
        """The fields, with milliseconds rounded to four decimals."""
        values = dataclasses.asdict(self)
        for name, numbers in values.items():
            if name.endswith("ms"):
                values[name] = [round(number, 4) for number in numbers]
        return values


def time_calls(
    model: Model,
    calls: Sequence[Call],
    *,
    concurrency: int = 1,
    new_tokens: int | None = None,
    warmup: int = 1,
) -> TimedCalls:
    """Time `calls`, with the artifact's generation defaults and garbage collection paused.

    Args:
        model: what is called.
        calls: the inputs of each call.
        concurrency: threads that call at once; the calls are split among them.
        new_tokens: the exact length of every answer; None lets each end where it ends.
        warmup: untimed calls of each thread before.

    Raises:
        ValueError: an answer has another length than requested.
        EdgeError: of `Model.generate`.
    """
    length = {} if new_tokens is None else _exactly(new_tokens)

    def full_call(call: Call) -> _TimedCall:
        timed = _time(model, call, length)
        lengths = {len(answer.token_ids) for answer in timed.answers}
        if new_tokens is not None and lengths != {new_tokens}:
            raise ValueError(f"answers of {sorted(lengths)} tokens instead of {new_tokens}")
        return timed

    def first_token(call: Call) -> _TimedCall:
        return _time(model, call, {"min_new_tokens": 0, "max_new_tokens": 1})

    per_thread = [calls[place::concurrency] for place in range(min(concurrency, len(calls)))]
    gc.collect()
    with garbage_collection_paused():
        untimed = [[part[i % len(part)] for i in range(warmup)] for part in per_thread]
        _concurrently(untimed, full_call)
        meter = EnergyMeter()
        full, seconds = _concurrently(per_thread, full_call)
        joules = meter.joules()
        first, _ = _concurrently(per_thread, first_token)
    # The rows of one call have the same timings.
    timings = [timed.answers[0].timings for timed in full]
    lengths = [[answer.output_tokens for answer in timed.answers] for timed in full]
    return TimedCalls(
        ms=[timed.ms for timed in full],
        tokenize_ms=[one.tokenize_ms for one in timings],
        generate_ms=[one.generate_ms for one in timings],
        detokenize_ms=[one.detokenize_ms for one in timings],
        first_ms=[timed.ms for timed in first],
        first_generate_ms=[timed.answers[0].timings.generate_ms for timed in first],
        new_tokens=[sum(of_call) for of_call in lengths],
        longest=[max(of_call) for of_call in lengths],
        seconds=seconds,
        joules=joules,
    )


def _exactly(new_tokens: int) -> dict[str, int]:
    return {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}


@dataclass(frozen=True)
class _TimedCall:
    ms: float
    answers: list[Generation]


def _time(model: Model, call: Call, options: Mapping[str, Any]) -> _TimedCall:
    texts, fields = [text for text, _ in call], [of_text for _, of_text in call]
    started = time.perf_counter()
    answers = model.generate(
        texts, fields=fields, on_long="truncate", batch_size=len(texts), **options
    )
    return _TimedCall((time.perf_counter() - started) * 1000, answers)


def _concurrently(
    per_thread: Sequence[Sequence[Call]], ask: Callable[[Call], _TimedCall]
) -> tuple[list[_TimedCall], float]:
    """Make each thread's calls, all threads at once; also returns the seconds from start to end."""
    if len(per_thread) == 1:
        started = time.perf_counter()
        found = [ask(call) for call in per_thread[0]]
        return found, time.perf_counter() - started
    starts: list[float] = []
    barrier = threading.Barrier(len(per_thread), action=lambda: starts.append(time.perf_counter()))

    def work(calls: Sequence[Call]) -> tuple[list[_TimedCall], float]:
        barrier.wait()
        return [ask(call) for call in calls], time.perf_counter()

    with ThreadPoolExecutor(len(per_thread)) as threads:
        ended = list(threads.map(work, per_thread))
    seconds = max(end for _, end in ended) - starts[0]
    return [timed for found, _ in ended for timed in found], seconds
