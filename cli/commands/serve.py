"""`edge serve`: artifacts served over HTTP."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.artifact_names import name_artifacts
from edge.cli.base import Command
from edge.cli.options import (
    guardrail_options,
    guardrails,
    read_text_option,
    threads_option,
    trust_option,
)
from edge.cli.param_types import INPUT, POSITIVE, Duration, Origin

if TYPE_CHECKING:
    from edge.runtime.serve.settings import ServeSettings

_KEY_VARIABLE = "EDGE_API_KEY"
_MAX_KEY_BYTES = 1 << 20
_LOCAL = ("127.0.0.1", "::1", "localhost")


@click.command(cls=Command)
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="Port; 0: any free one.")
@threads_option("from edge tune, else the cores, at most 4")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    show_default="the cores ÷ --threads for onnx and torchscript, else 1",
    help="Answers computed at the same time per artifact.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1, 256),
    metavar="N",
    show_default="measured at startup",
    help="Maximum texts of different requests that run together.",
)
@click.option(
    "--queue-size",
    type=click.IntRange(1, 100_000),
    default=64,
    metavar="N",
    help="Texts that may wait per artifact; more get status 429.",
)
@click.option(
    "--deadline",
    type=Duration(0.01, 3600),
    default="30s",
    help="Maximum time of a request.",
)
@click.option(
    "--max-body",
    type=click.IntRange(1, 1 << 30),
    default=1 << 20,
    metavar="BYTES",
    help="Maximum size of a request body.",
)
@click.option(
    "--max-requests",
    type=click.IntRange(1, 100_000),
    default=512,
    metavar="N",
    help="Maximum open requests; more get status 503.",
)
@click.option(
    "--drain-timeout",
    type=Duration(0.1, 3600),
    default="30s",
    help="Time to finish accepted requests after SIGTERM.",
)
@click.option(
    "--max-n",
    type=click.IntRange(1, 64),
    default=8,
    metavar="N",
    help="Maximum answers per text that a request may ask for.",
)
@click.option(
    "--max-beams",
    type=click.IntRange(1, 64),
    default=8,
    metavar="N",
    help="Maximum beams that a request may ask for.",
)
@click.option(
    "--max-work",
    type=click.IntRange(1, 1 << 30),
    default=32_768,
    metavar="TOKENS",
    help="Maximum texts × answers or beams × new tokens of a request.",
)
@click.option(
    "--allowed-host",
    multiple=True,
    metavar="NAME",
    show_default="the names of this machine if --host is one of them, else any",
    help="Name in the Host header that is answered, such as app.example or *; repeatable.",
)
@click.option(
    "--api-key-file",
    type=INPUT,
    metavar="FILE",
    help=f"File with one API key per line. {_KEY_VARIABLE} may hold another key.",
)
@click.option(
    "--cors-origin",
    type=Origin(),
    multiple=True,
    metavar="ORIGIN",
    help="Website that may call the service; repeatable.",
)
@click.option(
    "--chat",
    type=click.Choice(["last", "conversation"]),
    default="last",
    help="Input of the model: the last user message, or all messages.",
)
@click.option(
    "--max-new-tokens-limit",
    type=click.IntRange(1, 1 << 16),
    default=256,
    metavar="N",
    help="Maximum tokens that a request may ask for.",
)
@click.option("--allow-constraints", is_flag=True, help="Let clients constrain their answers.")
@click.option(
    "--target-ms",
    type=POSITIVE,
    default=100.0,
    metavar="MS",
    help="Target latency, reported to clients.",
)
@click.option("--log-content", is_flag=True, help="Log inputs and answers, not only token counts.")
@click.option("--quiet", is_flag=True, help="Log only problems, not every request.")
@trust_option
@guardrail_options
def command(
    artifacts: tuple[str, ...],
    host: str,
    port: int,
    api_key_file: Path | None,
    max_body: int,
    max_new_tokens_limit: int,
    cors_origin: tuple[str, ...],
    allowed_host: tuple[str, ...],
    threads: int | None,
    quiet: bool,
    trust_code: bool,
    **options: Any,
) -> None:
    """Serve each ARTIFACT, a folder, a hub id or NAME=folder, over HTTP.

    A folder of artifacts stands for all of them.

    The OpenAI-compatible endpoints are /v1/completions, /v1/chat/completions and /v1/models.
    /v1/generate adds scores and timings. /health, /ready and /metrics are for operations.

    The hash of every file is checked at startup.
    """
    rails = guardrails(options, max_new_tokens=max_new_tokens_limit)
    folders = name_artifacts(artifacts)
    keys = read_keys(api_key_file)
    _require_extra()
    from edge.runtime.hub.artifacts import artifact_folder
    from edge.runtime.model import load
    from edge.runtime.probe import probe_all
    from edge.runtime.serve import ServeSettings, create_app
    from edge.runtime.serve.hosts import allowed_hosts
    from edge.runtime.serve.server import bind, serve

    settings: ServeSettings = ServeSettings(
        api_keys=keys,
        cors_origins=cors_origin,
        max_body_bytes=max_body,
        allowed_hosts=allowed_hosts(host, allowed_host),
        **options,
    )
    logging.raiseExceptions = False  # a full disk under the log must not end the service
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, format="%(asctime)s %(message)s"
    )
    folders = {name: artifact_folder(folder) for name, folder in folders.items()}
    listener = bind(host, port)
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        probe_all(folders.values(), trust_code=trust_code)
        models = {
            name: stack.enter_context(
                load(
                    folder,
                    threads=threads or _threads(folder),
                    verify=True,
                    trust_code=trust_code,
                    guardrails=rails,
                )
            )
            for name, folder in folders.items()
        }
        if host not in _LOCAL and not keys:
            _say(f"edge: warning: {host} is open to other machines without an API key")
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        _say(f"edge: serving {', '.join(models)} on {address}")
        app = create_app(models, settings)
        workers_ended = serve(app, listener)
        service = app.state.service
        _say(
            f"edge: stopped; {service.accepted} requests accepted, {service.answered} answered,"
            f" {service.disconnected} canceled by their clients"
            + (f", {service.lost} not answered in time" if service.lost else "")
        )
        if not workers_ended:  # closing the models would wait for them
            os._exit(1 if service.lost else 0)
    if service.lost:
        sys.exit(1)


def _say(message: str) -> None:
    """Print a line on stderr, if that is possible."""
    with contextlib.suppress(OSError):
        click.echo(message, err=True)


def _threads(folder: Path) -> int | None:
    """None if `edge tune` chose a number, else the cores.

    A service, unlike a library, has the machine to itself. One engine with all threads answers
    sooner than one engine per core.
    """
    from edge.runtime.artifact.manifest import read_manifest
    from edge.runtime.platform.cpu import service_threads

    return None if "tuned" in read_manifest(folder).runtime else service_threads()


def read_keys(path: Path | None) -> tuple[str, ...]:
    """The API keys from the file and from the environment.

    Raises:
        UsageError: The file can't be read or has no key.
    """
    from edge.runtime.errors import UsageError

    keys = [os.environ.get(_KEY_VARIABLE, "").strip()]
    if path is not None:
        lines = read_text_option(path, _MAX_KEY_BYTES).splitlines()
        stripped = (line.strip() for line in lines)
        found = [line for line in stripped if line and not line.startswith("#")]
        if not found:
            raise UsageError(f"{path}: contains no API key")
        keys += found
    return tuple(key for key in keys if key)


def _require_extra() -> None:
    from edge.runtime.registry import missing_extra

    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("edge serve", str(error.name), "serve") from error
