"""Plain greedy search and search with drafts, timed in pairs on the same inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from edge.bench.speculation.results import Gain
from edge.bench.timing.interleaved import Turn, time_interleaved
from edge.bench.timing.latency import spread_rows
from edge.runtime.generation import Generation
from edge.runtime.model import Model
from edge.runtime.rows import Row

DRAFT_TOKENS = 6  # the longest draft from the input; longer ones are rarely accepted
_WARMUP = 3


def greedy_answer(model: Model, ids: Sequence[int], draft_tokens: int) -> Generation:
    """The answer of plain greedy search, with drafts of up to `draft_tokens` tokens."""
    answer = model.generate_tokens(
        ids,
        num_beams=1,
        do_sample=False,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        prompt_lookup_num_tokens=draft_tokens,
    )
    assert isinstance(answer, Generation)  # one row
    return answer


def gain_on_rows(
    model: Model, rows: Sequence[Row], runs: int, draft_tokens: int = DRAFT_TOKENS
) -> Gain:
    """What drafts gain on a loaded model.

    Args:
        model: a model whose engine drafts from the input.
        rows: the inputs, of which `runs` are taken, evenly spread.
        runs: timed pairs.
        draft_tokens: the longest draft.
    """
    chosen = spread_rows(rows, runs)
    ids = [model.encode([r.input], fields=r.fields, on_long="truncate")[0][0] for r in chosen]
    found = [greedy_answer(model, one, draft_tokens) for one in ids]
    tokens = sum(answer.output_tokens for answer in found)
    return timed_gain(
        "this artifact, its data",
        [partial(greedy_answer, model, one, 0) for one in ids],
        [partial(greedy_answer, model, one, draft_tokens) for one in ids],
        tokens / sum(answer.steps or answer.output_tokens for answer in found),
    )


def timed_gain(
    what: str,
    plain: Sequence[Callable[[], Any]],
    drafted: Sequence[Callable[[], Any]],
    tokens_per_step: float,
) -> Gain:
    """Time both searches on the same inputs, one after the other; which is first alternates."""
    for call in (*plain[:_WARMUP], *drafted[:_WARMUP]):
        call()
    times = np.zeros((2, len(plain)))

    def time_turn(search: int, turn: Turn) -> float:
        started = time.perf_counter()
        (plain, drafted)[search][turn.first]()
        seconds = time.perf_counter() - started
        times[search, turn.first] = seconds * 1000
        return seconds

    time_interleaved((0, 1), time_turn, runs=len(plain), turn_length=1)
    p5, p50, p95 = np.percentile(times[0] / times[1], (5, 50, 95))
    plain_ms, drafted_ms = np.median(times, axis=1)
    return Gain(
        what=what,
        runs=len(plain),
        tokens_per_step=tokens_per_step,
        plain_ms=float(plain_ms),
        drafted_ms=float(drafted_ms),
        speedup=float(p50),
        speedup_p5=float(p5),
        speedup_p95=float(p95),
    )
