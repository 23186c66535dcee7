"""The files in examples/: Python is run; Docker, systemd and Kubernetes files are checked."""

from __future__ import annotations

import configparser
import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.runtime import load, pipeline
from edge.runtime.model import Model

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
TEXTS = ("where was um was the bridge built?", "who uh who made it?")


@pytest.fixture(scope="module")
def model(artifacts: Path) -> Iterator[Model]:
    with load(artifacts / "onnx-int8") as model:
        yield model


def run(
    name: str, *arguments: object, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


def test_every_example_is_tested_and_listed() -> None:
    listed = re.findall(r"\[([\w.]+)\]\(\1\)", (EXAMPLES / "README.md").read_text())
    here = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert here == {*listed, "README.md", "Dockerfile.dockerignore"}
    tested = Path(__file__).read_text()
    named = [f'"{name}"' in tested or f"import {Path(name).stem}" in tested for name in listed]
    assert all(named), listed


def test_embedded(artifacts: Path, model: Model) -> None:
    ended = run("embedded.py", artifacts / "onnx-int8", *TEXTS)
    assert ended.returncode == 0, ended.stderr
    found = [line.split("\t")[0] for line in ended.stdout.splitlines()]
    assert found == [answer.text for answer in model.generate(list(TEXTS))]
    ended = run("embedded.py", artifacts / "none", "x")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1


def test_asyncio(artifacts: Path, model: Model) -> None:
    ended = run("async_app.py", artifacts / "onnx-int8", *TEXTS)
    assert ended.returncode == 0, ended.stderr
    first, second = (model.generate(text).text for text in TEXTS)
    assert ended.stdout.splitlines() == [first, second, second]


def test_batch_job(artifacts: Path, dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    ended = run("batch_job.py", artifacts / "onnx-int8", dataset / "dev.jsonl", output)
    assert ended.returncode == 0, ended.stderr
    assert "60 rows in" in ended.stdout
    assert "32 of 60" in ended.stderr
    assert all(json.loads(line)["output"] for line in output.open())


@pytest.mark.parametrize("name", ["langchain_llm.py", "haystack_component.py"])
def test_adapters(name: str, artifacts: Path) -> None:
    """The real library calls the pipeline; its answers are the pipeline's own."""
    default = ROOT / ".venv-adapters" / "bin" / "python"
    python = os.environ.get("EDGE_ADAPTERS_PYTHON")
    if python is None and not default.exists():
        pytest.skip("make interop runs it with LangChain and Haystack")
    ended = run(
        name,
        artifacts / "onnx-int8",
        *TEXTS,
        python=python or str(default),
        HAYSTACK_TELEMETRY_ENABLED="False",
    )
    assert ended.returncode == 0, ended.stderr
    assert len((EXAMPLES / name).read_text().splitlines()) < 40
    with pipeline("text2text-generation", artifacts / "onnx-int8", num_beams=1) as pipe:
        expected = [answer["generated_text"] for answer in pipe(list(TEXTS))]
    assert ended.stdout.splitlines() == expected


def test_fastapi_app(artifacts: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.setenv("EDGE_ARTIFACT", str(artifacts / "onnx-int8"))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import fastapi_app  # type: ignore[import-not-found]

    with TestClient(fastapi_app.app) as client:
        expected = model.generate(TEXTS[0]).text
        assert client.get("/rewrite", params={"text": TEXTS[0]}).json() == {"text": expected}
        answer = client.post("/edge/v1/completions", json={"model": "rewrite", "prompt": TEXTS[0]})
        assert answer.json()["choices"][0]["text"] == expected
        assert "<title>edge playground</title>" in client.get("/edge/").text
    assert fastapi_app.model.closed


# -- Docker, systemd, Kubernetes ------------------------------------------------------------------


def check_options(arguments: list[str]) -> None:
    """Check that `edge serve` accepts the arguments."""
    from edge.cli.commands.serve import command

    # A copy, because click caches the help option of a command.
    copy.copy(command).make_context("serve", list(arguments))


@pytest.fixture(scope="module")
def service(model: Model) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    from edge.runtime.serve import ServeSettings, create_app

    with TestClient(create_app(model, ServeSettings(api_keys=("k",)))) as client:
        yield client


def ready(client: Any) -> None:
    import time

    until = time.monotonic() + 30
    while client.get("/ready").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_dockerfile() -> None:
    text = (EXAMPLES / "Dockerfile").read_text().replace("\\\n", " ")
    extras = re.search(r"'/src\[([\w,]+)\]'", text)
    assert extras is not None
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(extras[1].split(",")) <= set(setup["options.extras_require"])
    lines = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in text.splitlines() if line}
    _, serve, *options = json.loads(lines["ENTRYPOINT"])
    assert serve == "serve"
    check_options([*options, *json.loads(lines["CMD"])])
    assert lines["USER"] not in ("root", "0")
    # The health check, with and without a running service.
    _, flag, code = json.loads(lines["HEALTHCHECK"].split("CMD ", 1)[1])
    assert flag == "-c"
    with _listening() as port:
        alive = code.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        assert subprocess.run([sys.executable, "-c", alive], capture_output=True).returncode == 0
    assert subprocess.run([sys.executable, "-c", alive], capture_output=True).returncode != 0


class _listening:  # noqa: N801
    """A server with /health only."""

    def __enter__(self) -> int:
        import http.server
        import threading

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/health" else 404)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self._server.server_port

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_systemd_unit(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(EXAMPLES / "edge.service")
    service = unit["Service"]
    _, serve, *options = shlex.split(service["ExecStart"])
    assert serve == "serve"
    check_options(options)
    drain = float(options[options.index("--drain-timeout") + 1])
    assert float(service["TimeoutStopSec"]) > drain
    if analyze := shutil.which("systemd-analyze"):
        text = (EXAMPLES / "edge.service").read_text().replace("/opt/edge/bin/edge", "/bin/true")
        (tmp_path / "edge.service").write_text(text)
        ended = subprocess.run(
            [analyze, "verify", str(tmp_path / "edge.service")], capture_output=True, text=True
        )
        assert "edge.service" not in ended.stderr, ended.stderr


def test_kubernetes_manifest(service: Any) -> None:
    import yaml

    documents = list(yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text()))
    kinds = {document["kind"]: document for document in documents}
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    check_options(container["args"])
    arguments = dict(zip(container["args"][1::2], container["args"][2::2], strict=True))
    # Without these options the service uses as many threads as the limit has cores.
    assert not {"--threads", "--workers"} & set(arguments)
    cores = int(container["resources"]["limits"]["cpu"])
    assert 1 <= cores <= 4
    assert int(container["resources"]["requests"]["cpu"]) == cores
    sleep = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = pod["terminationGracePeriodSeconds"]
    assert grace > sleep + float(arguments["--drain-timeout"])
    ready(service)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert service.get(container[probe]["httpGet"]["path"]).status_code == 200
    # The service exports the metric of the autoscaler, and reading it needs the key.
    [metric] = kinds["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    [endpoint] = kinds["ServiceMonitor"]["spec"]["endpoints"]
    assert service.get(endpoint["path"]).status_code == 401
    page = service.get(endpoint["path"], headers={"authorization": "Bearer k"}).text
    assert f"\n{name}{{" in page
    assert f"seriesQuery: {name}" in (ROOT / "docs" / "kubernetes.md").read_text()
    port = container["ports"][0]["containerPort"]
    dockerfile = (EXAMPLES / "Dockerfile").read_text()
    assert f'"--port", "{port}"' in dockerfile
    assert f"USER {pod['securityContext']['runAsUser']}\n" in dockerfile
