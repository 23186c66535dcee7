"""Load for a service: closed loops, open loops, and the process of the service itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bench.serving.http_client import LoadClient, Reply
from edge.runtime.errors import EdgeError

PATH = "/v1/generate"
CLIENTS = 8  # of a closed loop
_MAX_CONNECTIONS = 400  # that an open loop holds open
_READY_TIMEOUT = 60.0  # seconds
_POLL_INTERVAL = 0.02  # seconds
_MAX_LINE = 1 << 16  # bytes


@dataclass(frozen=True)
class Replies:
    """The replies to the requests of a load."""

    replies: list[Reply]

    def only(self, *statuses: int) -> bool:
        """Whether every reply has one of these statuses."""
        return all(reply.status in statuses for reply in self.replies)


@dataclass(frozen=True)
class OpenLoad(Replies):
    """What an open loop found.

    Attributes:
        unsent: requests that would have needed too many connections.
        rate: requests sent per second.
    """

    unsent: int
    rate: float

    @property
    def answered_seconds(self) -> list[float]:
        """Seconds of each reply with status 200."""
        return [reply.seconds for reply in self.replies if reply.status == 200]


def require_ok(reply: Reply) -> Reply:
    """The reply, if its status is 200.

    Raises:
        EdgeError: another status.
    """
    if reply.status != 200:
        raise EdgeError(f"a request without load got status {reply.status}: {reply.body[:200]!r}")
    return reply


async def capacity(client: LoadClient, body: dict[str, Any], seconds: float) -> float:
    """Answers per second to 8 clients that send a request as soon as they have the last answer."""
    until = time.perf_counter() + seconds
    done = 0

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() < until:
            require_ok(await client.post(PATH, body))
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(CLIENTS)))
    return done / (time.perf_counter() - started)


async def closed_loop(client: LoadClient, body: dict[str, Any], requests: int) -> None:
    """Send `requests` from 8 clients that wait for each answer.

    Raises:
        EdgeError: a reply with a status other than 200.
    """
    left = iter(range(requests))

    async def ask() -> None:
        for _ in left:
            require_ok(await client.post(PATH, body))

    await asyncio.gather(*(ask() for _ in range(CLIENTS)))


async def open_loop(
    client: LoadClient, body: dict[str, Any], rate: float, seconds: float
) -> OpenLoad:
    """Send requests at random times (a Poisson process), `rate` per second on average.

    They are sent whether or not earlier ones have been answered.
    """
    generator = random.Random(0)
    in_flight: set[asyncio.Task[None]] = set()
    replies: list[Reply] = []
    unsent = 0

    async def ask() -> None:
        replies.append(await client.post(PATH, body))

    started = due = time.perf_counter()
    while due - started < seconds:
        due += generator.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if len(in_flight) >= _MAX_CONNECTIONS:
            unsent += 1
            continue
        task = asyncio.create_task(ask())
        in_flight.add(task)
        task.add_done_callback(in_flight.discard)
    elapsed = time.perf_counter() - started
    await asyncio.gather(*in_flight)
    return OpenLoad(replies, unsent, len(replies) / elapsed)


@dataclass(frozen=True)
class CutLoad(Replies):
    """What clients that hang up at random moments found.

    Attributes:
        sent: Requests that were sent.
        cut: Requests whose connection the client closed before the reply was complete.
    """

    sent: int
    cut: int


async def cut_loop(
    host: str, port: int, body: dict[str, Any], clients: int, seconds: float, patience: float
) -> CutLoad:
    """Send requests from `clients` at once; half of them hang up before the reply.

    Args:
        host: Of the service.
        port: Of the service.
        body: Of every request.
        clients: How many there are.
        seconds: How long new requests are sent.
        patience: The longest that a client waits before it hangs up, in seconds.
    """
    generator = random.Random(0)
    until = time.perf_counter() + seconds
    sent = cut = 0
    replies: list[Reply] = []

    async def ask() -> None:
        nonlocal sent, cut
        while time.perf_counter() < until:
            client = LoadClient(host, port, keep_alive=False)
            leaves = generator.random() < 0.5
            limit = generator.uniform(0, patience) if leaves else None
            sent += 1
            try:
                replies.append(await asyncio.wait_for(client.post(PATH, body), limit))
            except TimeoutError:
                cut += 1

    await asyncio.gather(*(ask() for _ in range(clients)))
    return CutLoad(replies, sent, cut)


async def resident_bytes(client: LoadClient) -> float:
    """Resident memory of the service, from its /metrics.

    Raises:
        EdgeError: the service does not report it.
    """
    page = (await client.get("/metrics")).body.decode()
    for line in page.splitlines():
        if line.startswith("process_resident_memory_bytes"):
            return float(line.split()[1])
    raise EdgeError("/metrics has no process_resident_memory_bytes (it needs Linux)")


@dataclass(frozen=True)
class ServiceProcess:
    """A running `edge serve`.

    Attributes:
        process: Its process.
        port: The port that it listens on.
        log: Descriptor of the file with what it writes to standard error.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: int

    def last_line(self) -> str:
        """The last line that it has written to standard error."""
        written = os.pread(self.log, _MAX_LINE, max(0, os.fstat(self.log).st_size - _MAX_LINE))
        return written.decode(errors="replace").strip().splitlines()[-1]


@contextlib.contextmanager
def service(artifact: Path, options: Sequence[str]) -> Iterator[ServiceProcess]:
    """Run `edge serve` with `options` on a free port.

    Raises:
        EdgeError: the service did not start.
    """
    # In a file: a pipe that nobody reads during the load would block the service once it is full.
    with tempfile.TemporaryFile(prefix="edge-serve-") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge.cli", "serve", str(artifact), "--port", "0", *options],
            stderr=log,
        )
        try:
            line = _first_line(process, log.fileno())
            if " on http" not in line:
                raise EdgeError(f"edge serve did not start: {line.strip()}")
            yield ServiceProcess(process, int(line.strip().rpartition(":")[2]), log.fileno())
        finally:
            process.kill()
            process.wait()


def _first_line(process: subprocess.Popen[bytes], log: int) -> str:
    """The first line that a process writes to a file; what there is if it ends, or in a minute."""
    until = time.monotonic() + _READY_TIMEOUT
    while True:
        ended = process.poll() is not None or time.monotonic() > until
        # The process shares the file's position, which pread leaves as it is.
        line, end, _ = os.pread(log, _MAX_LINE, 0).partition(b"\n")
        if end or ended:
            return line.decode(errors="replace")
        time.sleep(_POLL_INTERVAL)


async def wait_ready(client: LoadClient) -> None:
    """Wait until /ready says that the service is.

    Raises:
        EdgeError: it is not within a minute.
    """
    until = time.monotonic() + _READY_TIMEOUT
    while time.monotonic() < until:
        if (await client.get("/ready")).status == 200:
            return
        await asyncio.sleep(0.05)
    raise EdgeError(f"edge serve was not ready within {_READY_TIMEOUT:g} s")
