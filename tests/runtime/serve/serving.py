"""Services on real ports, for the tests of `edge serve`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from edge.runtime.model import Model
from edge.runtime.serve import ServeSettings, create_app
from edge.runtime.serve.http_timeouts import timed_protocol
from edge.runtime.serve.server import DrainingServer, bind
from edge.runtime.serve.service import Service


@contextlib.contextmanager
def running(
    models: Model | dict[str, Model],
    *,
    max_connections: int = 100,
    head_timeout: float = 0.5,
    **settings: Any,
) -> Iterator[tuple[httpx2.Client, Service]]:
    """uvicorn in a thread, with short timeouts; yields a client and the service."""
    import uvicorn

    app = create_app(models, ServeSettings(**settings))
    service: Service = app.state.service
    listener = bind("127.0.0.1", 0)
    protocol = timed_protocol(
        head_timeout=head_timeout, write_timeout=1, max_connections=max_connections
    )
    config = uvicorn.Config(app, http=protocol, ws="none", log_config=None, lifespan="on")
    config.timeout_graceful_shutdown = 2
    server = DrainingServer(config, service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx2.Client(base_url=base, timeout=20) as client:
            wait_ready(client)
            yield client, service
    finally:
        server.should_exit = True
        thread.join()


def wait_ready(client: httpx2.Client) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(httpx2.TransportError):
            if client.get("/ready").status_code == 200:
                return
        time.sleep(0.02)
    raise AssertionError("the service did not become ready")


@contextlib.contextmanager
def started(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`edge serve` as a process; yields it and its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli", "serve", *map(str, arguments), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=Path(__file__).parent,
    )
    try:
        assert process.stderr is not None
        yield process, process.stderr.readline()
    finally:
        process.kill()
        if process.stderr is not None and not process.stderr.closed:
            process.communicate()


@contextlib.contextmanager
def command(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`edge serve` as a process that is ready; yields it and its address."""
    with started(*arguments, **environment) as (process, line):
        assert process.stderr is not None
        assert " on http" in line, line + process.stderr.read()
        address = line.split(" on ")[1].strip()
        with httpx2.Client(base_url=address) as client:
            wait_ready(client)
        yield process, address
