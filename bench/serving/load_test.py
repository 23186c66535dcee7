"""Load test of `edge serve`: `python -m edge.bench.serving.load_test ARTIFACT`.

Starts the service as a separate process and measures, in this order: the time that HTTP adds to
`model.generate`, the capacity, an open-loop load of half the capacity, one of five times the
capacity, 50 clients that hang up at random, memory over many requests, and SIGTERM under load.
After each load a plain request must be answered within a second.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from edge.bench.serving.findings import (
    Finding,
    milliseconds,
    overload_findings,
    percentiles,
    statuses,
    steady_findings,
)
from edge.bench.serving.http_client import LoadClient
from edge.bench.serving.load_generator import (
    CLIENTS,
    PATH,
    ServiceProcess,
    capacity,
    closed_loop,
    cut_loop,
    open_loop,
    require_ok,
    resident_bytes,
    service,
    wait_ready,
)
from edge.bench.timing.machine import machine_info
from edge.runtime.platform.cpu import service_threads

_STEADY_RATIO, _OVERLOAD_RATIO = 0.5, 5.0  # of the capacity
_WARMUP = 10
_CUT_CLIENTS = 50
_RECOVERY = 1.0  # seconds in which a plain request is answered after a load


@dataclass(frozen=True)
class LoadTestPlan:
    """How much is measured.

    Attributes:
        body: of every request.
        duration: seconds of each open loop.
        sequential: requests that are sent one at a time, for latency.
        requests: requests that are sent for the growth of memory.
        deadline: of the service, in seconds.
        threads: that the engine computes with.
        trust_code: load an artifact that is code; see `edge.runtime.load`.
    """

    body: dict[str, Any]
    duration: float
    sequential: int
    requests: int
    deadline: float
    threads: int
    trust_code: bool = False


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path, exists=True))
@click.option("--text", default="what is the uh no sorry who is the mayor of the old town")
@click.option("--new-tokens", type=int, default=16, show_default=True, help="Of every answer.")
@click.option("--duration", default=120.0, show_default=True, help="Seconds of each open loop.")
@click.option("--requests", default=20_000, show_default=True, help="For the growth of memory.")
@click.option("--sequential", default=300, show_default=True, help="For latency and overhead.")
@click.option("--deadline", default=5.0, show_default=True, help="Of the service, in seconds.")
@click.option("--threads", type=int, help="Of the engine  [default: the cores, at most 4].")
@click.option("--trust-code", is_flag=True, help="Load TorchScript exported elsewhere.")
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
    trust_code: bool,
    serve_option: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Load-test edge serve. Exits with 3 if a target is missed."""
    body = {"input": text, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    plan = LoadTestPlan(
        body, duration, sequential, requests, deadline, threads or service_threads(), trust_code
    )
    findings = asyncio.run(run_load_test(artifact, plan, serve_option))
    for item in findings:
        verdict = {None: "", True: "  ✓", False: "  ✗"}[item.holds]
        click.echo(f"{item.name:<44} {item.value:<34} {item.target}{verdict}")
    if json_file is not None:
        report = {
            "kind": "serving",
            "schema_version": 1,
            "machine": machine_info(),
            "findings": [asdict(item) for item in findings],
        }
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if any(item.holds is False for item in findings):
        sys.exit(3)


async def run_load_test(
    artifact: Path, plan: LoadTestPlan, serve_options: Sequence[str] = ()
) -> list[Finding]:
    """Start the service, measure everything in `plan`, and end the service.

    Raises:
        EdgeError: the service does not start, or refuses a request without load.
    """
    options = ["--deadline", str(plan.deadline), "--threads", str(plan.threads), "--quiet"]
    if plan.trust_code:
        options.append("--trust-code")
    with service(artifact, [*options, *serve_options]) as started:
        port = started.port
        client = LoadClient("127.0.0.1", port)
        await wait_ready(client)
        single_p95, findings = await _overhead(artifact, client, plan)
        limit = await capacity(client, plan.body, max(2.0, plan.duration / 10))
        findings.append(Finding(f"capacity ({CLIENTS} at a time)", f"{limit:.0f} requests/s"))
        steady = await open_loop(client, plan.body, limit * _STEADY_RATIO, plan.duration)
        findings += steady_findings(steady, limit, single_p95)
        overload = await open_loop(client, plan.body, limit * _OVERLOAD_RATIO, plan.duration)
        findings += overload_findings(overload, plan.deadline)
        findings.append(await _recovery("5 × capacity", port, plan))
        findings += await _hang_ups(port, plan)
        findings.append(await _recovery("clients that hang up", port, plan))
        findings.append(await _memory(client, plan))
        client.close()
        findings += await _sigterm(started, plan, limit)
    return findings


async def _overhead(
    artifact: Path, client: LoadClient, plan: LoadTestPlan
) -> tuple[float, list[Finding]]:
    """The p95 of single requests in seconds, and what HTTP adds; calls and requests alternate."""
    from edge.runtime import load

    text, options = plan.body["input"], {k: v for k, v in plan.body.items() if k != "input"}
    direct: list[float] = []
    over_http: list[float] = []
    with load(artifact, threads=plan.threads, trust_code=plan.trust_code) as model:
        for run in range(plan.sequential + _WARMUP):
            started = time.perf_counter()
            model.generate(text, **options)
            seconds = time.perf_counter() - started
            reply = require_ok(await client.post(PATH, plan.body))
            if run >= _WARMUP:
                direct.append(seconds)
                over_http.append(reply.seconds)
    direct_p50 = float(np.median(direct))
    p50, p95 = percentiles(over_http, 50, 95)
    added = (p50 - direct_p50) * 1000
    return p95, [
        Finding("model.generate p50", milliseconds(direct_p50)),
        Finding("one request at a time p50 / p95", f"{milliseconds(p50)} / {milliseconds(p95)}"),
        Finding("added by the service, p50", f"{added:.2f} ms", "at most 2 ms", added <= 2),
    ]


async def _hang_ups(port: int, plan: LoadTestPlan) -> list[Finding]:
    load = await cut_loop(
        "127.0.0.1", port, plan.body, _CUT_CLIENTS, plan.duration / 2, plan.deadline / 2
    )
    name = f"{_CUT_CLIENTS} clients that hang up"
    return [
        Finding(f"{name}: sent / cut", f"{load.sent:,} / {load.cut:,}"),
        Finding(
            f"{name}: replies", statuses(load.replies), "200, 429, 503", load.only(200, 429, 503)
        ),
    ]


async def _recovery(after: str, port: int, plan: LoadTestPlan) -> Finding:
    """A plain request on a new connection, after a load."""
    reply = await LoadClient("127.0.0.1", port, keep_alive=False).post(PATH, plan.body)
    return Finding(
        f"a request after {after}",
        f"{reply.status} in {milliseconds(reply.seconds)}",
        f"200 within {_RECOVERY:g} s",
        reply.status == 200 and reply.seconds < _RECOVERY,
    )


async def _memory(client: LoadClient, plan: LoadTestPlan) -> Finding:
    """Growth of the service's resident memory after the first tenth of many requests."""
    batch = max(1, plan.requests // 10)
    sizes = []
    for first in range(0, plan.requests, batch):
        await closed_loop(client, plan.body, min(batch, plan.requests - first))
        sizes.append(await resident_bytes(client))
    before, after = sizes[0], sizes[-1]
    growth = after / before - 1
    return Finding(
        f"memory over {plan.requests:,} requests",
        f"{before / 1e6:.1f} → {after / 1e6:.1f} MB ({growth:+.1%})",
        "at most +5 % after a tenth",
        growth <= 0.05,
    )


async def _sigterm(served: ServiceProcess, plan: LoadTestPlan, limit: float) -> list[Finding]:
    """SIGTERM two seconds into twice the capacity.

    The counts are those that the service prints: the client can't tell a request that the service
    accepted from one that only reached the system's backlog.
    """
    client = LoadClient("127.0.0.1", served.port, keep_alive=False)
    loading = asyncio.create_task(open_loop(client, plan.body, 2 * limit, 4.0))
    await asyncio.sleep(2.0)
    started = time.perf_counter()
    served.process.send_signal(signal.SIGTERM)
    status = await asyncio.to_thread(served.process.wait, 60)
    ended = time.perf_counter() - started
    load = await loading
    counts = re.findall(r"\d+", served.last_line())
    accepted, answered, canceled, *unanswered = map(int, counts)
    lost = accepted - answered - canceled + sum(unanswered)
    return [
        Finding("SIGTERM under load: replies", statuses(load.replies)),
        Finding(
            "SIGTERM under load: accepted and lost",
            f"{lost} of {accepted} ({canceled} canceled by their clients)",
            "none",
            lost == 0,
        ),
        Finding(
            "SIGTERM under load: end", f"after {ended:.1f} s, status {status}", "0", status == 0
        ),
    ]


if __name__ == "__main__":
    main()
