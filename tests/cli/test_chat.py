"""`edge chat`: through pipes, on a terminal, and with a service."""

from __future__ import annotations

import contextlib
import http.server
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.runtime import load
from edge.runtime.model import Model

pytestmark = pytest.mark.alone

Refused = Callable[..., str]
TEXT = "where was um was the bridge built?"


@pytest.fixture(scope="module")
def model(artifacts: Path) -> Iterator[Model]:
    with load(artifacts / "onnx-int8") as model:
        yield model


@pytest.fixture(scope="module")
def service(artifacts: Path) -> Iterator[str]:
    """The address of `edge serve` with two artifacts and an API key."""
    arguments = (f"small={artifacts / 'onnx-int8'}", f"exact={artifacts / 'onnx-float32'}")
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli", "serve", *arguments, "--port", "0", "--quiet"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "EDGE_API_KEY": "s3cret"},
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert " on http" in line, line
        yield line.split(" on ")[1].strip()
    finally:
        process.terminate()
        process.communicate()


def chat(
    *arguments: object, text: bytes | str, **environment: str
) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "-m", "edge.cli", "chat", *map(str, arguments)],
        input=text if isinstance(text, bytes) else text.encode(),
        capture_output=True,
        env={**os.environ, **environment},
        timeout=60,
    )
    out, err = ended.stdout.decode(), ended.stderr.decode()
    return subprocess.CompletedProcess(ended.args, ended.returncode, out, err)


def test_a_line_in_is_a_line_out(artifacts: Path, model: Model) -> None:
    ended = chat(artifacts / "onnx-int8", text=f"{TEXT}\n\nwho uh who made it?\n/stats\n")
    assert ended.returncode == 0
    assert ended.stderr == ""
    first, blank, second, *stats = ended.stdout.splitlines()
    assert blank == ""
    assert [first, second] == [a.text for a in model.generate([TEXT, "who uh who made it?"])]
    assert "\x1b" not in ended.stdout
    assert "> " not in ended.stdout
    assert len(stats) == 3
    assert f"{model.generate(TEXT).output_tokens} tokens" in stats[0]
    assert "of 2 within 100 ms; median" in stats[2]
    late = chat(artifacts / "onnx-int8", "--target-ms", 0.001, text=f"{TEXT}\n/stats\n/quit\nx\n")
    assert "late" in late.stdout
    assert "0 of 1 within 0.001 ms" in late.stdout
    assert len(late.stdout.splitlines()) == 3


def test_an_error_is_one_line_and_the_chat_goes_on(artifacts: Path) -> None:
    text = b"word " * 700 + b"\n\xff\n/stat\n" + TEXT.encode() + b"\n"
    ended = chat(artifacts / "onnx-int8", text=text)
    assert ended.returncode == 1
    too_long, not_utf8, unknown = ended.stderr.splitlines()
    assert "this artifact takes" in too_long
    assert not_utf8 == "edge: standard input:2: not UTF-8"
    assert "Did you mean 'stats'" in unknown
    assert ended.stdout.splitlines()[:3] == ["", "", ""]  # on the lines of their inputs
    assert len(ended.stdout.splitlines()) == 4


def test_the_model_can_read_the_whole_conversation(artifacts: Path, model: Model) -> None:
    artifact = artifacts / "onnx-int8"
    ended = chat(artifact, "--chat", "conversation", text=f"{TEXT}\nwho?\n/clear\nwho?\n")
    first, second, third = ended.stdout.splitlines()
    assert first == model.generate(f"user: {TEXT}").text
    assert second == model.generate(f"user: {TEXT}\nassistant: {first}\nuser: who?").text
    assert third == model.generate("user: who?").text
    beams = chat(artifact, "--num-beams", 2, text=f"{TEXT}\n")
    assert beams.stdout.rstrip("\n") == model.generate(TEXT, num_beams=2).text


def test_a_service_gives_the_same_answers(service: str, artifacts: Path, model: Model) -> None:
    ended = chat(
        *("--url", service, "--max-new-tokens", 3), text=f"{TEXT}\n/stats\n", EDGE_API_KEY="s3cret"
    )
    assert ended.returncode == 0, ended.stderr
    answer, figures, _ = ended.stdout.splitlines()
    assert answer == model.generate(TEXT, max_new_tokens=3).text
    assert "3 tokens" in figures
    with load(artifacts / "onnx-float32") as exact:
        expected = exact.generate(TEXT).text
    arguments = ("--url", f"{service}/v1/", "--model", "exact")
    ended = chat(*arguments, text=f"{TEXT}\n", EDGE_API_KEY="s3cret")
    assert ended.stdout.splitlines() == [expected]


def test_a_service_that_refuses(
    service: str, assert_refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGE_API_KEY", raising=False)
    line = assert_refused("chat", "--url", service, status=1)
    assert "missing or invalid API key" in line
    assert "(HTTP 401)" in line
    monkeypatch.setenv("EDGE_API_KEY", "s3cret")
    line = assert_refused("chat", "--url", service, "--model", "smal")
    assert "Did you mean 'small'" in line
    assert "no answer" in assert_refused("chat", "--url", "http://127.0.0.1:9", status=1)
    assert "must look like" in assert_refused("chat", "--url", "ftp://x")
    assert "the port must be" in assert_refused("chat", "--url", "http://x:99999")
    assert "one of them" in assert_refused("chat")
    assert "one of them" in assert_refused("chat", "x", "--url", service)
    ended = chat("--url", service, "--max-new-tokens", "9999", text=TEXT, EDGE_API_KEY="s3cret")
    assert ended.returncode == 1
    assert "9999" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


class _Broken(http.server.BaseHTTPRequestHandler):
    """A service that closes the connection too early, or sends something else."""

    answer = b""

    def do_GET(self) -> None:
        self._send(b'{"data": [{"id": "m"}]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send(self.answer)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            b'data: {"choices": [{"delta": {"content": "half"}}]}\n\n',
            "closed the connection before the answer",
        ),
        (b"data: {half\n\n", "an event is not a JSON object"),
        (b'data: {"error": {"message": "too\\u001b[31m much"}}\n\n', "too [31m much"),
    ],
)
def test_a_service_with_a_broken_stream(answer: bytes, message: str) -> None:
    handler = type("Handler", (_Broken,), {"answer": answer})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        ended = chat("--url", f"127.0.0.1:{server.server_port}", text="hello\n")
        server.shutdown()
        thread.join()
    assert ended.returncode == 1
    assert ended.stdout == "\n"  # nothing of half an answer
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@contextlib.contextmanager
def terminal(*arguments: object) -> Iterator[tuple[subprocess.Popen[bytes], Callable[..., str]]]:
    """`edge chat` on a terminal; yields it and a function that types and reads until a text."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli", "chat", *map(str, arguments)],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)

    pending = ""

    def say(text: str, until: str) -> str:
        nonlocal pending
        os.write(ours, text.encode())
        deadline = time.monotonic() + 30
        while until not in pending:
            ready, _, _ = select.select([ours], [], [], max(0, deadline - time.monotonic()))
            assert ready, pending
            pending += os.read(ours, 4096).decode()
        seen, found, pending = pending.partition(until)
        return seen + found

    try:
        yield process, say
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_terminal_shows_a_prompt_and_latencies(artifacts: Path, model: Model) -> None:
    with terminal(artifacts / "onnx-int8", "--target-ms", 60_000) as (process, say):
        assert "/help for help" in say("", "> ")
        seen = say(f"{TEXT}\n", " tokens")
        assert model.generate(TEXT).text in seen
        assert "\x1b[32m" in seen  # green: within the target
        say("", "> ")
        assert "/quit" in say("/help\n", "> ")
        assert "edge: unknown command" in say("/x\n", "> ")
        say("\x04", "\n")
        assert process.wait(timeout=20) == 0
