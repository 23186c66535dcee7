"""What an engine is, as the parent lists it and as its process runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# (source ids with eos, number of new tokens) → the answer's tokens, start token left out.
Generate = Callable[[list[int], int], Sequence[object]]


@dataclass(frozen=True)
class Spec:
    """What a process is asked to run.

    `model` is a Hugging Face folder; what is made from it for this engine is in `cache`, and what
    that is made from in `base` (see `Baseline.made_from`). `target` is "format-quantization" of our own
    artifacts.
    """

    engine: str
    model: Path
    cache: Path
    base: Path
    threads: int
    target: str = ""


@dataclass(frozen=True)
class Baseline:
    """An engine to compare with.

    `libraries` are modules whose absence means "not installed". `separate`: it lives in the baselines'
    own environment. `made_from` is the engine whose conversion this one starts from. `respond`
    answers the requests where these are not timings of ids: what `load` returned and the request →
    the fields of the answer.
    """

    engine: str
    quantization: str
    bits: int  # per weight of the decoder
    libraries: tuple[str, ...]
    load: Callable[[Spec], Any]
    prepare: Callable[[Spec], None] | None = None
    separate: bool = False
    made_from: str | None = None
    respond: Callable[[Any, dict[str, Any]], dict[str, Any]] | None = None
