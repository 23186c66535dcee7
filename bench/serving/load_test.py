"""How `edge serve` bears load: `python -m edge.bench.serving.load_test ARTIFACT`, or `make bench-serve`.

Starts the service as a process of its own and measures, in this order: what HTTP adds to
`model.generate`, the capacity, an open-loop load of half of it (requests come at random times,
whether or not earlier ones are answered), five times the capacity, memory over many requests, and
SIGTERM in the midst of load.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from edge.bench.serving.http_client import BROKEN, REFUSED, LoadClient, Reply
from edge.bench.timing.machine import machine_info
from edge.runtime.errors import EdgeError
from edge.runtime.platform.cpu import service_threads

_PATH = "/v1/generate"
_STEADY_SHARE, _OVERLOAD = 0.5, 5.0
_CONNECTIONS_AT_ONCE = 400  # as many as a load test may hold open; beyond, requests are not sent


@dataclass(frozen=True)
class Finding:
    """One figure, and what it should be; `holds` None where there is no target."""

    name: str
    value: str
    target: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class Plan:
    """How much is measured; seconds and numbers of requests."""

    body: dict[str, Any]
    duration: float
    sequential: int
    requests: int
    deadline: float
    threads: int


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path, exists=True))
@click.option("--text", default="what is the uh no sorry who is the mayor of the old town")
@click.option("--new-tokens", type=int, default=16, show_default=True, help="Of every answer.")
@click.option("--duration", default=120.0, show_default=True, help="Seconds of each open load.")
@click.option("--requests", default=20_000, show_default=True, help="For the growth of memory.")
@click.option("--sequential", default=300, show_default=True, help="For latency and overhead.")
@click.option("--deadline", default=5.0, show_default=True, help="Of the service, in seconds.")
@click.option("--threads", type=int, help="Of the engine; default: the cores, at most 4.")
@click.option("--serve-option", multiple=True, help="Passed on to edge serve (repeatable).")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures.")
def main(
    artifact: Path,
    text: str,
    new_tokens: int,
    duration: float,
    requests: int,
    sequential: int,
    deadline: float,
    threads: int | None,
    serve_option: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Measure edge serve under load; exit code 3 where a target is missed."""
    body = {"input": text, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    plan = Plan(body, duration, sequential, requests, deadline, threads or service_threads())
    findings = asyncio.run(_measure(artifact, plan, serve_option))
    for item in findings:
        verdict = {None: "", True: "  ✓", False: "  ✗"}[item.holds]
        click.echo(f"{item.name:<44} {item.value:<34} {item.target}{verdict}")
    if json_file is not None:
        machine = machine_info()
        report = {"machine": machine, "findings": [asdict(item) for item in findings]}
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if any(item.holds is False for item in findings):
        sys.exit(3)


async def _measure(artifact: Path, plan: Plan, options: tuple[str, ...]) -> list[Finding]:
    served = (
        *("--deadline", str(plan.deadline), "--threads", str(plan.threads), "--quiet"),
        *options,
    )
    with _served(artifact, served) as (process, port):
        client = LoadClient("127.0.0.1", port)
        await _wait_ready(client)
        single, findings = await _overhead(artifact, client, plan)
        capacity = await _capacity(client, plan)
        findings.append(Finding("capacity (8 at a time)", f"{capacity:.0f} requests/s"))
        steady = await _open_loop(client, plan, capacity * _STEADY_SHARE, plan.duration)
        findings += _steady_findings(steady, capacity, single)
        overload = await _open_loop(client, plan, capacity * _OVERLOAD, plan.duration)
        findings += _overload_findings(overload, plan)
        findings.append(await _memory(client, plan))
        client.close()
        findings += await _sigterm(process, port, plan, capacity)
    return findings


# -- the parts -----------------------------------------------------------------------------------


async def _overhead(artifact: Path, client: LoadClient, plan: Plan) -> tuple[float, list[Finding]]:
    """The p95 of single requests, and what HTTP adds at p50; both sides take turns."""
    from edge.runtime import load

    text, options = plan.body["input"], {k: v for k, v in plan.body.items() if k != "input"}
    inside: list[float] = []
    outside: list[float] = []
    with load(artifact, threads=plan.threads) as model:
        for turn in range(plan.sequential + 10):
            started = time.perf_counter()
            model.generate(text, **options)
            own = time.perf_counter() - started
            reply = _must_be_answered(await client.post(_PATH, plan.body))
            if turn >= 10:
                inside.append(own)
                outside.append(reply.seconds)
    added = (statistics.median(outside) - statistics.median(inside)) * 1000
    p95 = _percentile(outside, 95)
    return p95, [
        Finding("model.generate p50", _ms(statistics.median(inside))),
        Finding("one request at a time p50 / p95", f"{_ms(_percentile(outside, 50))} / {_ms(p95)}"),
        Finding("added by the service, p50", f"{added:.2f} ms", "at most 2 ms", added <= 2),
    ]


async def _capacity(client: LoadClient, plan: Plan) -> float:
    """Answers a second with 8 clients that always wait for theirs."""
    until = time.perf_counter() + max(2.0, plan.duration / 10)
    done = 0

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() < until:
            _must_be_answered(await client.post(_PATH, plan.body))
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(8)))
    return done / (time.perf_counter() - started)


@dataclass(frozen=True)
class _Load:
    """Replies to an open loop; `unsent` would have needed more connections than may be open."""

    replies: list[Reply]
    unsent: int
    rate: float


async def _open_loop(client: LoadClient, plan: Plan, rate: float, seconds: float) -> _Load:
    """Requests at random times, `rate` a second on average, whatever becomes of the others."""
    generator = random.Random(0)
    under_way: set[asyncio.Task[None]] = set()
    replies: list[Reply] = []
    unsent = 0

    async def ask() -> None:
        replies.append(await client.post(_PATH, plan.body))

    started = due = time.perf_counter()
    while due - started < seconds:
        due += generator.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if len(under_way) >= _CONNECTIONS_AT_ONCE:
            unsent += 1
            continue
        task = asyncio.create_task(ask())
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    elapsed = time.perf_counter() - started
    await asyncio.gather(*under_way)
    return _Load(replies, unsent, len(replies) / elapsed)


def _steady_findings(load: _Load, capacity: float, single: float) -> list[Finding]:
    times = [reply.seconds for reply in load.replies if reply.status == 200]
    p95 = _percentile(times, 95)
    ratio = p95 / single
    return [
        Finding("half load: sent", f"{load.rate:.0f}/s ({load.rate / capacity:.0%} of capacity)"),
        Finding("half load: replies", _statuses(load), "all 200", _only(load, 200)),
        Finding(
            "half load: p50 / p95",
            f"{_ms(_percentile(times, 50))} / {_ms(p95)} ({ratio:.2f} × single)",
            "p95 at most 1.5 × single",
            ratio <= 1.5,
        ),
    ]


def _overload_findings(load: _Load, plan: Plan) -> list[Finding]:
    times = [reply.seconds for reply in load.replies if reply.status == 200]
    worst = max(times, default=float("nan"))
    told = all("retry-after" in r.headers for r in load.replies if r.status in (429, 503))
    return [
        Finding("5 × capacity: sent", f"{load.rate:.0f}/s ({load.unsent} could not be)"),
        Finding(
            "5 × capacity: replies", _statuses(load), "200, 429, 503", _only(load, 200, 429, 503)
        ),
        Finding("5 × capacity: refusals say when", "yes" if told else "no", "Retry-After", told),
        Finding(
            "5 × capacity: accepted p50 / p95 / max",
            f"{_ms(_percentile(times, 50))} / {_ms(_percentile(times, 95))} / {_ms(worst)}",
            f"under the deadline of {plan.deadline:g} s",
            worst < plan.deadline,
        ),
    ]


async def _memory(client: LoadClient, plan: Plan) -> Finding:
    """Growth of the service's resident memory over many requests, after a tenth of them."""
    before = 0.0
    left = plan.requests
    while left > 0:
        batch = min(left, max(1, plan.requests // 10))
        queue = iter(range(batch))

        async def ask(queue: Iterator[int] = queue) -> None:
            for _ in queue:
                _must_be_answered(await client.post(_PATH, plan.body))

        await asyncio.gather(*(ask() for _ in range(8)))
        left -= batch
        after = await _resident(client)
        before = before or after
    growth = after / before - 1
    return Finding(
        f"memory over {plan.requests:,} requests",
        f"{before / 1e6:.1f} → {after / 1e6:.1f} MB ({growth:+.1%})",
        "at most +5 % after a tenth",
        growth <= 0.05,
    )


async def _resident(client: LoadClient) -> float:
    page = (await client.get("/metrics")).body.decode()
    for line in page.splitlines():
        if line.startswith("process_resident_memory_bytes"):
            return float(line.split()[1])
    raise EdgeError("the service shows no process_resident_memory_bytes (Linux only)")


async def _sigterm(
    process: subprocess.Popen[bytes], port: int, plan: Plan, capacity: float
) -> list[Finding]:
    """SIGTERM two seconds into twice the capacity. What was accepted is the service's own count:
    a connection that the system took but the service had not read yet looks alike from here."""
    client = LoadClient("127.0.0.1", port, keep_alive=False)
    loading = asyncio.create_task(_open_loop(client, plan, 2 * capacity, 4.0))
    await asyncio.sleep(2.0)
    started = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    status = await asyncio.to_thread(process.wait, 60)
    ended = time.perf_counter() - started
    load = await loading
    assert process.stderr is not None
    said = process.stderr.read().decode().strip().splitlines()[-1].removeprefix("edge: stopped; ")
    accepted, answered, left = map(int, re.findall(r"\d+", said))
    return [
        Finding("SIGTERM under load: replies", _statuses(load)),
        Finding(
            "SIGTERM under load: accepted and lost",
            f"{accepted - answered} of {accepted}",
            "none",
            accepted == answered and not left,
        ),
        Finding(
            "SIGTERM under load: end", f"after {ended:.1f} s, status {status}", "0", status == 0
        ),
    ]


# -- around them ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _served(
    artifact: Path, options: tuple[str, ...]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    arguments = [str(artifact), "--port", "0", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli", "serve", *arguments], stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline().decode()
        if " on http" not in line:
            raise EdgeError(f"the service did not start: {line.strip()}")
        yield process, int(line.strip().rpartition(":")[2])
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


async def _wait_ready(client: LoadClient) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (await client.get("/ready")).status == 200:
            return
        await asyncio.sleep(0.05)
    raise EdgeError("the service did not become ready")


def _must_be_answered(reply: Reply) -> Reply:
    if reply.status != 200:
        raise EdgeError(f"a lone request got {reply.status}: {reply.body[:200]!r}")
    return reply


def _only(load: _Load, *statuses: int) -> bool:
    return all(reply.status in statuses for reply in load.replies)


def _statuses(load: _Load) -> str:
    names = {REFUSED: "no connection", BROKEN: "broken"}
    counts = Counter(names.get(reply.status, str(reply.status)) for reply in load.replies)
    return ", ".join(f"{count} × {name}" for name, count in sorted(counts.items()))


def _percentile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else float("nan")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


if __name__ == "__main__":
    main()
