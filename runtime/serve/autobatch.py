"""Does this engine, on this machine, gain by answering several texts at once?"""

from __future__ import annotations

import time
from dataclasses import dataclass

from edge.runtime.model import Model

_TEXT = "what is the name of the long river that runs through the old town and who built the bridge"
_SIZES = (1, 2, 4, 8, 16)
_NEW_TOKENS = 12
_REPEATS = 3
# A batch must answer texts at least this much faster than one by one, for whoever shares it waits
# for the slowest text in it.
_GAIN = 1.15
_BUDGET_SECONDS = 3.0


@dataclass(frozen=True)
class Measured:
    """The batch size to use, and the seconds that a text took at it."""

    batch: int
    seconds_per_text: float


def measure(model: Model, *, largest: int | None = None) -> Measured:
    """Warm the engine up and time batches; the best of several runs, for other work only adds.

    `largest` bounds the sizes that are tried; 1 only warms up.
    """
    limit, new = model.limits.max_input_tokens, min(_NEW_TOKENS, model.limits.max_new_tokens)
    ids = model.tokenizer.encode([_TEXT])[0][-limit:]
    options = {"max_new_tokens": new, "min_new_tokens": new, "num_beams": 1, "do_sample": False}
    options |= {"num_return_sequences": 1}

    def seconds(size: int) -> float:
        started = time.perf_counter()
        model.generate_tokens([ids] * size, batch_size=size, **options)
        return (time.perf_counter() - started) / size

    begun = time.perf_counter()
    seconds(1)  # the first run pays for what is loaded and allocated once
    best = Measured(1, min(seconds(1) for _ in range(_REPEATS)))
    alone = best.seconds_per_text
    for size in _SIZES[1:]:
        out_of_time = time.perf_counter() - begun > _BUDGET_SECONDS
        if out_of_time or (largest is not None and size > largest):
            break
        each = min(seconds(size) for _ in range(_REPEATS))
        if each * _GAIN < alone and each * 1.05 < best.seconds_per_text:
            best = Measured(size, each)
    return best
