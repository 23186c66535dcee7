"""Timed answers, text to text, as the engine's own process takes them.

What is timed is what an app waits for: `Model.generate`, which also tells how its time was spent.
"""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from edge.runtime.generation import Generation
from edge.runtime.model import Model

# (text, the prompt's fields) of each input of a call.
Call = Sequence[tuple[str, Mapping[str, object]]]
_GREEDY = {"num_beams": 1, "do_sample": False}


@dataclass(frozen=True)
class TimedCalls:
    """What a turn's calls took: a value for each call, in milliseconds but for the counts.

    `first_*` are of the same call with answers of one token. `new_tokens` counts those of all of
    the call's answers, eos included, `longest` those of the longest. `seconds` went by from the
    start of the first call to the end of the last.
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


def time_calls(
    model: Model,
    calls: Sequence[Call],
    *,
    concurrency: int = 1,
    new_tokens: int | None = None,
    warmup: int = 1,
) -> TimedCalls:
    """Time `calls`, shared among `concurrency` threads that ask at once.

    Each thread makes `warmup` calls before, which do not count. `new_tokens` is the exact length of
    every answer; None lets each end where it ends. The garbage collector is held off.

    Raises:
        ValueError: an answer has another length than was asked for.
        EdgeError: of `Model.generate`.
    """
    length = {} if new_tokens is None else _exactly(new_tokens)

    def whole(call: Call) -> _Timed:
        timed = _time(model, call, length)
        lengths = {len(answer.token_ids) for answer in timed.answers}
        if new_tokens is not None and lengths != {new_tokens}:
            raise ValueError(f"answers of {lengths} tokens where {new_tokens} were asked for")
        return timed

    def first(call: Call) -> _Timed:
        return _time(model, call, {"min_new_tokens": 0, "max_new_tokens": 1})

    shares = [calls[place::concurrency] for place in range(min(concurrency, len(calls)))]
    gc.collect()
    gc.disable()
    try:
        _together([[share[i % len(share)] for i in range(warmup)] for share in shares], whole)
        found, seconds = _together(shares, whole)
        firsts, _ = _together(shares, first)
    finally:
        gc.enable()
    return _turn(found, firsts, seconds)


def _exactly(new_tokens: int) -> dict[str, int]:
    return {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}


@dataclass(frozen=True)
class _Timed:
    ms: float
    answers: list[Generation]


def _time(model: Model, call: Call, options: Mapping[str, Any]) -> _Timed:
    texts, fields = [text for text, _ in call], [own for _, own in call]
    chosen = {**_GREEDY, **options}
    started = time.perf_counter()
    answers = model.generate(
        texts, fields=fields, on_long="truncate", batch_size=len(texts), **chosen
    )
    return _Timed((time.perf_counter() - started) * 1000, answers)


def _together(
    shares: Sequence[Sequence[Call]], ask: Callable[[Call], _Timed]
) -> tuple[list[_Timed], float]:
    """Ask every call, each share in a thread of its own, and the seconds that all of them took."""
    if len(shares) == 1:
        started = time.perf_counter()
        found = [ask(call) for call in shares[0]]
        return found, time.perf_counter() - started
    starts: list[float] = []
    gate = threading.Barrier(len(shares), action=lambda: starts.append(time.perf_counter()))

    def work(share: Sequence[Call]) -> tuple[list[_Timed], float]:
        gate.wait()
        return [ask(call) for call in share], time.perf_counter()

    with ThreadPoolExecutor(len(shares)) as threads:
        ended = list(threads.map(work, shares))
    seconds = max(end for _, end in ended) - starts[0]
    return [timed for own, _ in ended for timed in own], seconds


def _turn(found: Sequence[_Timed], firsts: Sequence[_Timed], seconds: float) -> TimedCalls:
    # The rows of one call share its timings.
    timings = [timed.answers[0].timings for timed in found]
    lengths = [[answer.output_tokens for answer in timed.answers] for timed in found]
    return TimedCalls(
        ms=[timed.ms for timed in found],
        tokenize_ms=[one.tokenize_ms for one in timings],
        generate_ms=[one.generate_ms for one in timings],
        detokenize_ms=[one.detokenize_ms for one in timings],
        first_ms=[timed.ms for timed in firsts],
        first_generate_ms=[timed.answers[0].timings.generate_ms for timed in firsts],
        new_tokens=[sum(own) for own in lengths],
        longest=[max(own) for own in lengths],
        seconds=seconds,
    )


def as_fields(turn: TimedCalls) -> dict[str, Any]:
    """A turn as JSON: times to a tenth of a microsecond."""
    values = dataclasses.asdict(turn)
    for name, numbers in values.items():
        if name.endswith("ms"):
            values[name] = [round(number, 4) for number in numbers]
    return values
