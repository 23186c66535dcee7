"""Load on `edge serve` by clients that leave at random moments. Slow: about two minutes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from edge.bench.serving.http_client import LoadClient
from edge.bench.serving.load_generator import PATH, capacity, open_loop, resident_bytes
from samples import TEXTS
from serving import command

pytestmark = [pytest.mark.alone, pytest.mark.slow]

CLIENTS, SECONDS = 50, 60.0
BODY = {"input": TEXTS[0], "min_new_tokens": 16, "max_new_tokens": 16}
STREAM = {"prompt": TEXTS[0], "min_new_tokens": 64, "max_new_tokens": 64, "stream": True}


def request(path: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + content


async def leaving_client(port: int, until: float, seed: int, seen: Counter[str]) -> None:
    """Requests of which half are abandoned: in the head, the body, the queue or the answer."""
    generator = random.Random(seed)
    plain, stream = request(PATH, BODY), request("/v1/completions", STREAM)
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            seen["no connection"] += 1
            continue
        kind = generator.choice(("whole", "whole", "whole", "cut", "leave", "stream"))
        try:
            if kind == "cut":
                writer.write(plain[: generator.randrange(1, len(plain))])
                await asyncio.sleep(generator.random() * 0.02)
            elif kind == "leave":
                writer.write(plain)
                await asyncio.sleep(generator.random() * 0.2)
            elif kind == "stream":
                writer.write(stream)
                await reader.read(generator.randrange(1, 2000))
            else:
                writer.write(plain)
                status = (await asyncio.wait_for(reader.read(), 20))[9:12].decode()
                seen[status or "broken"] += 1
        except (OSError, TimeoutError) as error:
            if kind == "whole":
                seen[type(error).__name__] += 1
        finally:
            seen[kind] += 1
            if generator.random() < 0.5:
                writer.transport.abort()  # a reset, not an orderly end
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def descriptors(client: LoadClient) -> float:
    page = (await client.get("/metrics")).body.decode()
    [line] = [line for line in page.splitlines() if line.startswith("process_open_fds ")]
    return float(line.split()[1])


async def plain_request_seconds(client: LoadClient) -> float:
    reply = await client.post(PATH, BODY)
    assert reply.status == 200
    return reply.seconds


async def attack(port: int) -> None:
    client = LoadClient("localhost", port)
    rate = await capacity(client, BODY, 3.0)
    client.close()
    files = await descriptors(client)
    seen: Counter[str] = Counter()
    # The first seconds open further graphs and fill the allocators' pools.
    until = time.monotonic() + SECONDS / 4
    await asyncio.gather(*(leaving_client(port, until, -seed, seen) for seed in range(CLIENTS)))
    memory = await resident_bytes(client)
    until = time.monotonic() + SECONDS
    await asyncio.gather(*(leaving_client(port, until, seed, seen) for seed in range(CLIENTS)))
    print(f"capacity {rate:.0f}/s; {CLIENTS} clients, {SECONDS:.0f} s: {dict(seen)}")
    await asyncio.sleep(1.0)  # a cut stream ends at its next token
    assert await plain_request_seconds(client) < 1
    statuses = {name for name in seen if name not in ("whole", "cut", "leave", "stream")}
    assert statuses <= {"200", "429", "503"}
    assert seen["200"] > 100

    load = await open_loop(client, BODY, 5 * rate, SECONDS / 2)
    counts = Counter(reply.status for reply in load.replies)
    print(f"5 × capacity: {load.rate:.0f}/s, {load.unsent} not sent, {dict(counts)}")
    assert load.only(200, 429, 503)
    client.close()
    await asyncio.sleep(0.5)
    assert await plain_request_seconds(client) < 1
    after = await resident_bytes(client)
    print(f"memory {memory / 1e6:.1f} → {after / 1e6:.1f} MB")
    assert after < 1.1 * memory
    assert await descriptors(client) <= files + 2
    assert (await client.get("/ready")).status == 200


def test_clients_that_leave_at_random_and_five_times_the_capacity(artifacts: Path) -> None:
    options = ("--workers", 1, "--deadline", 5, "--quiet")
    with command(artifacts / "onnx-float32", *options) as (process, address):
        asyncio.run(attack(int(address.rpartition(":")[2])))
        process.terminate()
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        print(errors.strip().splitlines()[-1])
