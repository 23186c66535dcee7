"""Cost of constrained decoding: `python -m edge.bench.constraints`.

The time per token with constraints that hold for the whole answer, against the same number of
tokens without; and a choice among 50 labels against free text of as many tokens. Random weights:
speed only. Exits with 3 if a token costs over 15 % more, or a choice is not faster.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from edge.bench.engines.cache import Prepared, default_cache
from edge.bench.engines.random_ids import RandomIds
from edge.bench.engines.shapes import SHAPES, shape_of
from edge.bench.timing.interleaved import garbage_collection_paused
from edge.bench.timing.machine import machine_info
from edge.export.publish import Target
from edge.runtime.generation import Generation
from edge.runtime.model import Model, load
from edge.runtime.platform.atomic import new_file

MAX_COST = 0.15
_INPUT_TOKENS = 32
_LABELS = [
    f"{a} {b}" for a, b in itertools.product(("new", "old", "big", "red", "hot"), "abcdefghij")
]
# They hold for any number of tokens, and never end before it.
_ENDLESS: dict[str, dict[str, Any]] = {
    "regex": {"regex": "[a-z ]{4000,}"},
    "json_schema": {
        "json_schema": {
            "type": "object",
            "properties": {"text": {"type": "string", "minLength": 4000}},
            "required": ["text"],
        }
    },
    "grammar": {"grammar": 'start: WORD (" " WORD)*\nWORD: /[a-z]{2,12}/'},
}


@dataclass(frozen=True)
class Case:
    """One kind of answer: median milliseconds, their quartiles, and its tokens."""

    name: str
    ms: float
    low: float
    high: float
    tokens: int

    @property
    def per_token(self) -> float:
        """Milliseconds per token, the encoder's included."""
        return self.ms / self.tokens


def measure(model: Model, ids: tuple[int, ...], new_tokens: int, runs: int) -> list[Case]:
    """Time answers to one input, in turns.

    Args:
        model: The loaded artifact.
        ids: The input.
        new_tokens: Tokens of the endless answers.
        runs: Timed answers of each kind.

    Returns:
        "free", the endless constraints, "choices" and "free, as short".
    """

    def answer(**options: Any) -> Callable[[], Generation]:
        def call() -> Generation:
            found = model.generate_tokens(ids, **options)
            assert isinstance(found, Generation)
            return found

        return call

    exact = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
    choice = answer(choices=_LABELS, max_new_tokens=new_tokens)
    length = choice().output_tokens
    calls = {
        "free": answer(**exact),
        **{name: answer(**exact, **options) for name, options in _ENDLESS.items()},
        "choices": choice,
        "free, as short": answer(min_new_tokens=length, max_new_tokens=length),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    tokens = {name: call().output_tokens for name, call in calls.items()}
    order = list(calls)
    with garbage_collection_paused():
        for run in range(runs):
            for name in (*order[run % len(order) :], *order[: run % len(order)]):
                started = time.perf_counter()
                calls[name]()
                times[name].append((time.perf_counter() - started) * 1000)
    cases = []
    for name, ms in times.items():
        low, middle, high = statistics.quantiles(ms, n=4)
        cases.append(Case(name, middle, low, high, tokens[name]))
    return cases


@click.command()
@click.option("--shape", type=click.Choice([*SHAPES]), default="flan-t5-base", show_default=True)
@click.option("--quantize", default="int8", show_default=True, help="Quantization of the artifact.")
@click.option("--format", "format_name", default="onnx", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--new-tokens", default=32, show_default=True)
@click.option("--runs", default=30, show_default=True, help="Timed answers of each kind.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures.")
def main(
    shape: str,
    quantize: str,
    format_name: str,
    threads: int,
    new_tokens: int,
    runs: int,
    json_file: Path | None,
) -> None:
    """Measure what constraints cost on this machine."""
    prepared = Prepared.of_shape(shape, default_cache())
    spec = prepared.artifact(Target(format_name, quantize))
    prepared.make(spec)
    ids = RandomIds(prepared.model, shape_of(shape)).of_length(_INPUT_TOKENS)
    with load(spec.cache, threads=threads, trust_code=True) as model:
        cases = measure(model, ids, new_tokens, runs)
    by_name = {case.name: case for case in cases}
    free = by_name["free"]
    for case in cases:
        click.echo(
            f"{case.name:15} {case.tokens:3} tokens {case.ms:8.2f} ms"
            f" ({case.low:.2f} to {case.high:.2f})  {case.per_token:6.3f} ms a token"
            f"  {case.per_token / free.per_token - 1:+7.1%}"
        )
    if json_file is not None:
        values = {
            "machine": machine_info(),
            "shape": shape,
            "artifact": f"{format_name}-{quantize}",
            "threads": threads,
            "cases": [asdict(case) for case in cases],
        }
        with new_file(json_file) as staging:
            staging.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    costly = any(by_name[name].per_token > (1 + MAX_COST) * free.per_token for name in _ENDLESS)
    slow = by_name["choices"].ms >= by_name["free, as short"].ms
    sys.exit(3 if costly or slow else 0)


if __name__ == "__main__":
    main()
