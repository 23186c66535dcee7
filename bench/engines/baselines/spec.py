"""Descriptions of engines, shared by the benchmark and by the processes that it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# (sources with eos, number of new tokens) → the tokens of each answer without the
# start token.
Generate = Callable[[list[list[int]], int], Sequence[Sequence[object]]]


@dataclass(frozen=True)
class Spec:
    """What a process runs.

    Attributes:
        engine: a name of `table.BASELINES`, or `table.EDGE` or `table.TEXT`.
        model: the Hugging Face model folder.
        cache: the engine's conversion of it.
        base: the conversion that `cache` is made from (see `Baseline.made_from`).
        threads: that the engine computes with.
        target: "format-quantization" of edge's artifacts.
        trust_code: see `edge.runtime.load`.
    """

    engine: str
    model: Path
    cache: Path
    base: Path
    threads: int
    target: str = ""
    trust_code: bool = False


@dataclass(frozen=True)
class Baseline:
    """An engine to compare with.

    Attributes:
        engine: its name in tables.
        quantization: its name in tables.
        bits: of a decoder weight.
        libraries: modules that it imports; without them it is "not installed".
        load: opens the model.
        prepare: converts the model; None if the engine reads the model folder itself.
        separate: whether it runs in the baselines' environment (`make baselines`).
        made_from: the engine whose conversion this one starts from.
        batches: whether it answers several sources together, not one by one.
        respond: answers requests that are not timings of ids, from what `load` returned and the
            request.
    """

    engine: str
    quantization: str
    bits: int
    libraries: tuple[str, ...]
    load: Callable[[Spec], Any]
    prepare: Callable[[Spec], None] | None = None
    separate: bool = False
    made_from: str | None = None
    batches: bool = True
    respond: Callable[[Any, dict[str, Any]], dict[str, Any]] | None = None
