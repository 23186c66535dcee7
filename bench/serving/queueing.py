"""Scheduling policies on two cores, simulated: `python -m edge.bench.serving.queueing ARTIFACT`.

Measures how long the engine takes for batches of each size, once per batch and per decoder step,
and simulates a queue with Poisson arrivals under several policies. Nothing of HTTP is counted, and
a request that joins a running batch costs nothing but its encoder and its row: no implementation
of a policy can beat what it reaches here.
"""

from __future__ import annotations

import heapq
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from edge.bench.timing.latency import artificial_ids
from edge.bench.timing.machine import machine_info
from edge.runtime.errors import EdgeError
from edge.runtime.model import Model, load
from edge.runtime.platform.atomic import new_file

SIZES = (1, 2, 4, 8, 16)  # measured; the times of others are interpolated
NEW_TOKENS, INPUT_TOKENS = 16, 32
_REQUESTS, _SEED = 20_000, 0


@dataclass(frozen=True)
class EngineTimes:
    """Seconds of an engine by the rows of a batch, from 1 to the largest of `SIZES`.

    Attributes:
        once: of encoding a batch, and all else that happens once.
        step: of a decoder step.
    """

    once: tuple[float, ...]
    step: tuple[float, ...]

    def batch(self, rows: int) -> float:
        """A whole batch of answers."""
        return self.once[rows - 1] + NEW_TOKENS * self.step[rows - 1]

    @property
    def largest(self) -> int:
        """The most rows of a batch."""
        return len(self.step)


@dataclass(frozen=True)
class Outcome:
    """A policy at one rate of arrivals.

    Attributes:
        policy: its name.
        capacity: requests per second that it can answer.
        p50, p95: seconds from arrival to answer.
    """

    policy: str
    capacity: float
    p50: float
    p95: float


def simulate_batches(
    arrivals: Sequence[float], times: EngineTimes, *, workers: int = 1, largest: int | None = None
) -> np.ndarray:
    """Seconds from arrival to answer where a free worker takes all waiting requests as a batch.

    Args:
        arrivals: seconds, ascending.
        times: of a worker.
        workers: that compute at the same time.
        largest: most rows of a batch; None takes the most that was measured. 1 is a plain queue.
    """
    limit = largest or times.largest
    free = [0.0] * workers
    seconds, done = np.empty(len(arrivals)), 0
    while done < len(arrivals):
        start = max(heapq.heappop(free), arrivals[done])
        rows = 1
        while rows < limit and done + rows < len(arrivals) and arrivals[done + rows] <= start:
            rows += 1
        end = start + times.batch(rows)
        heapq.heappush(free, end)
        seconds[done : done + rows] = end - np.asarray(arrivals[done : done + rows])
        done += rows
    return seconds


def simulate_joining(arrivals: Sequence[float], times: EngineTimes, *, every: int) -> np.ndarray:
    """Seconds from arrival to answer where requests join the running batch.

    Args:
        arrivals: seconds, ascending.
        times: of the one worker.
        every: decoder steps between two moments at which requests join and leave.
    """
    seconds, now, arrived = np.empty(len(arrivals)), 0.0, 0
    running: deque[tuple[int, int]] = deque()  # request, steps left
    while arrived < len(arrivals) or running:
        if not running:
            now = max(now, arrivals[arrived])
        joined = 0
        while arrived < len(arrivals) and arrivals[arrived] <= now and len(running) < times.largest:
            running.append((arrived, NEW_TOKENS))
            arrived, joined = arrived + 1, joined + 1
        if joined:
            now += times.once[joined - 1]
        now += every * times.step[len(running) - 1]
        remaining: deque[tuple[int, int]] = deque()
        for request, left in running:
            if left > every:
                remaining.append((request, left - every))
            else:
                seconds[request] = now - arrivals[request]
        running = remaining
    return seconds


def measure_times(model: Model, runs: int) -> EngineTimes:
    """The times of a loaded model, from medians of batches with few and with many tokens."""
    largest = SIZES[-1]
    ids = artificial_ids(model, INPUT_TOKENS)
    # Sizes and lengths take turns, so that a noisy moment affects all of them.
    found: dict[tuple[int, int], list[float]] = {}
    for run in range(runs + 1):
        for rows in SIZES:
            for tokens in (1, NEW_TOKENS):
                started = time.perf_counter()
                model.generate_tokens(
                    [ids] * rows,
                    batch_size=rows,
                    max_new_tokens=tokens,
                    min_new_tokens=tokens,
                    num_beams=1,
                    do_sample=False,
                    prompt_lookup_num_tokens=0,
                )
                if run:  # the first is the warm-up
                    found.setdefault((rows, tokens), []).append(time.perf_counter() - started)
    short = [statistics.median(found[rows, 1]) for rows in SIZES]
    whole = [statistics.median(found[rows, NEW_TOKENS]) for rows in SIZES]
    steps = [(b - a) / (NEW_TOKENS - 1) for a, b in zip(short, whole, strict=True)]
    once = [max(0.0, a - step) for a, step in zip(short, steps, strict=True)]
    every = range(1, largest + 1)
    return EngineTimes(
        tuple(np.interp(every, SIZES, once).tolist()),
        tuple(np.interp(every, SIZES, steps).tolist()),
    )


def compare_policies(two: EngineTimes, one: EngineTimes, seed: int = _SEED) -> list[Outcome]:
    """All policies at half of the capacity of the first, which is what `edge serve` does.

    Args:
        two: times of one engine with two threads.
        one: times of an engine with one thread, measured alone, which favors two workers.
        seed: of the arrivals.
    """
    rows = range(1, two.largest + 1)

    def full(times: EngineTimes, workers: int = 1, largest: int | None = None) -> float:
        return workers * max(n / times.batch(n) for n in rows if largest is None or n <= largest)

    def joined(times: EngineTimes, every: int) -> float:
        # While n rows stay n, each joining encodes as many as have left.
        joinings = NEW_TOKENS / every

        def seconds(n: int) -> float:
            encoded = max(1, round(n / joinings))
            return joinings * times.once[encoded - 1] + NEW_TOKENS * times.step[n - 1]

        return max(n / seconds(n) for n in rows)

    capacity = full(two)
    gaps = np.random.default_rng(seed).exponential(2 / capacity, _REQUESTS)
    arrivals: list[float] = np.cumsum(gaps).tolist()
    found = {
        "batches, 2 threads": (capacity, simulate_batches(arrivals, two)),
        "one by one, 2 threads": (full(two, largest=1), simulate_batches(arrivals, two, largest=1)),
        "batches, 2 workers with 1 thread": (
            full(one, workers=2),
            simulate_batches(arrivals, one, workers=2),
        ),
        "one by one, 2 workers with 1 thread": (
            full(one, workers=2, largest=1),
            simulate_batches(arrivals, one, workers=2, largest=1),
        ),
    }
    for every in (1, 4, 8):
        name = f"joining every {f'{every} steps' if every > 1 else 'step'}, 2 threads"
        found[name] = (joined(two, every), simulate_joining(arrivals, two, every=every))
    return [
        Outcome(name, limit, *(float(value) for value in np.percentile(seconds, (50, 95))))
        for name, (limit, seconds) in found.items()
    ]


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path, exists=True))
@click.option("--runs", default=30, show_default=True, help="Timed batches of each size.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures.")
def main(artifact: Path, runs: int, json_file: Path | None) -> None:
    """Compare ways to schedule requests for ARTIFACT, by measured times and simulated queues."""
    times = {}
    try:
        for threads in (2, 1):
            with load(artifact, threads=threads) as model:
                times[threads] = measure_times(model, runs)
    except EdgeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    outcomes = compare_policies(times[2], times[1])
    lone = times[2].batch(1)
    click.echo(f"a lone request: {lone * 1e3:.1f} ms; arrivals: half of the first capacity")
    for outcome in outcomes:
        click.echo(
            f"{outcome.policy:38} capacity {outcome.capacity:6.1f}/s"
            f"   p50 {outcome.p50 * 1e3:7.1f} ms   p95 {outcome.p95 * 1e3:7.1f} ms"
            f" = {outcome.p95 / lone:.2f} × lone"
        )
    if json_file is not None:
        document = {
            "machine": machine_info(),
            "times": {str(threads): asdict(found) for threads, found in times.items()},
            "policies": [asdict(outcome) for outcome in outcomes],
        }
        with new_file(json_file) as staging:
            staging.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
