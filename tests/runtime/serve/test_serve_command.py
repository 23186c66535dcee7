"""`edge serve` as a process: the openai client, SIGTERM under load, and failures to start."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

import httpx2

from edge.runtime import load
from edge.runtime.install import install_command
from edge.runtime.platform.cpu import usable_cores
from samples import TEXTS
from serving import command

pytestmark = pytest.mark.alone


def test_the_engine_uses_the_cores_or_the_tuned_threads(artifacts: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(artifacts / "onnx-int8", tuned)
    manifest = json.loads((tuned / "edge.json").read_text())
    manifest["runtime"] |= {"threads": 1, "tuned": {}}
    (tuned / "edge.json").write_text(json.dumps(manifest))
    with command(artifacts / "onnx-int8", tuned) as (_, address):
        listed = httpx2.get(f"{address}/v1/models").json()["data"]
    threads = {item["id"]: item["edge"]["threads"] for item in listed}
    assert threads == {"onnx-int8": min(4, usable_cores()), "tuned": 1}


def test_the_openai_client_works_unchanged(artifacts: Path) -> None:
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    folder = artifacts / "onnx-float32"
    with load(folder) as model:
        expected = model.generate(TEXTS[0])
    with command(f"m={folder}", EDGE_API_KEY="secret") as (_, address):
        with openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as client:
            assert [item.id for item in client.models.list()] == ["m"]
            assert client.models.retrieve("m").owned_by == "edge"
            done = client.completions.create(model="m", prompt=TEXTS[0])
            assert done.choices[0].text == expected.text
            assert done.usage.completion_tokens == expected.output_tokens
            messages = [{"role": "user", "content": TEXTS[0]}]
            chat = client.chat.completions.create(model="m", messages=messages, max_tokens=64)
            assert chat.choices[0].message.content == expected.text
            pieces = [
                chunk.choices[0].delta.content or ""
                for chunk in client.chat.completions.create(
                    model="m", messages=messages, stream=True, extra_body={"num_beams": 1}
                )
            ]
            assert "".join(pieces) == expected.text
            with pytest.raises(openai.NotFoundError):
                client.completions.create(model="x", prompt="a")
            with pytest.raises(openai.BadRequestError, match="logit_bias"):
                client.completions.create(model="m", prompt="a", logit_bias={"5": 1})
            # 413 is a status that the client has no exception class for.
            with pytest.raises(openai.APIStatusError) as caught:
                client.completions.create(model="m", prompt="word " * 1000)
            assert caught.value.code == "context_length_exceeded"
        intruder = openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0)
        with intruder, pytest.raises(openai.AuthenticationError):
            intruder.models.list()


def test_sigterm_under_load_answers_everything_it_accepted(artifacts: Path) -> None:
    """A client sees complete answers or refusals until the port closes, never half an answer."""
    lock = threading.Lock()
    seen: list[int | str] = []

    def ask(address: str) -> None:
        body = {"input": TEXTS[0], "min_new_tokens": 100, "max_new_tokens": 100}
        # No keep-alive: an idle connection may be closed just as a request is sent on it.
        client = httpx2.Client(base_url=address, timeout=30, headers={"connection": "close"})
        while True:
            try:
                answer = client.post("/v1/generate", json=body)
            except httpx2.ConnectError:
                return
            except httpx2.TransportError as error:
                with lock:
                    seen.append(repr(error))
                return
            answer.json()
            with lock:
                seen.append(answer.status_code)

    options = ("--workers", 1, "--queue-size", 4, "--quiet")
    with command(artifacts / "onnx-float32", *options) as (process, address):
        threads = [threading.Thread(target=ask, args=(address,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        while sum(status == 200 for status in seen) < 10:
            assert process.poll() is None
            threads[0].join(0.01)
        before = len(seen)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert process.wait(10) == 0
    assert set(seen) <= {200, 429, 503}, set(seen)
    assert 200 in seen[before:]


def refusal(*arguments: object) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "edge.cli", "serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    return ended.returncode, lines[0]


def test_a_port_in_use_is_one_line(artifacts: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, line = refusal(artifacts / "onnx-float32", "--port", port)
    assert status == 1
    assert f"port {port} of 127.0.0.1 is in use" in line


def test_an_altered_artifact_is_not_served(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "altered"
    shutil.copytree(artifacts / "onnx-float32", folder)
    path = folder / "decoder.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    status, line = refusal(artifacts / "onnx-float32", folder, "--port", 0)
    assert status == 2
    assert "decoder.onnx is altered" in line


def test_bad_usage_is_one_line(
    assert_refused: Callable[..., str], artifacts: Path, tmp_path: Path
) -> None:
    folder = artifacts / "onnx-float32"
    assert "NAME=folder" in assert_refused("serve", folder, folder)
    assert "not an artifact" in assert_refused("serve", tmp_path, "--port", 0)
    assert "no API key" in assert_refused("serve", folder, "--api-key-file", _empty(tmp_path))
    assert "can't be read" in assert_refused("serve", folder, "--api-key-file", tmp_path / "no")
    assert "not an address" in assert_refused("serve", folder, "--host", "no.such.host.invalid")
    assert_refused("serve", folder, "--port", 70000)


def _empty(folder: Path) -> Path:
    path = folder / "keys"
    path.write_text("# none yet\n\n")
    return path


def test_without_the_extra_one_line_says_which(artifacts: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from edge.cli.main import main\n"
        f"main(['serve', {json.dumps(str(artifacts / 'onnx-float32'))}])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert install_command("serve") in ended.stderr
