"""`edge serve`: artifacts over HTTP."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.options import guardrail_options, guardrails

if TYPE_CHECKING:
    from edge.runtime.serve.settings import ServeSettings

_KEY_VARIABLE = "EDGE_API_KEY"
_LOCAL = ("127.0.0.1", "::1", "localhost")


@click.command()
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT…")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Answers computed at the same time per artifact; default: the cores by --threads where the"
    " engine computes concurrently (onnx, torchscript), else 1.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1, 256),
    help="Most texts of different requests to run together; default: measured at the start.",
)
@click.option(
    "--queue-size",
    type=click.IntRange(1, 100_000),
    default=64,
    show_default=True,
    help="Texts that may wait per artifact; more are refused with 429.",
)
@click.option(
    "--deadline",
    type=click.FloatRange(0.01, 3600),
    default=30,
    show_default=True,
    help="Seconds that a request may take.",
)
@click.option(
    "--max-body",
    type=click.IntRange(1, 1 << 30),
    default=1 << 20,
    show_default=True,
    help="Most bytes of a request's body.",
)
@click.option(
    "--max-requests",
    type=click.IntRange(1, 100_000),
    default=512,
    show_default=True,
    help="Most requests under way; more are refused with 503.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0.1, 3600),
    default=30,
    show_default=True,
    help="Seconds that SIGTERM waits for accepted requests.",
)
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path),
    help=f"File of keys, one a line; clients send one as bearer token. Or ${_KEY_VARIABLE}.",
)
@click.option("--cors-origin", multiple=True, help="Site whose pages may call (repeatable).")
@click.option(
    "--chat",
    type=click.Choice(["last", "conversation"]),
    default="last",
    show_default=True,
    help="What of a chat the model reads: the last user message, or all messages.",
)
@click.option(
    "--max-new-tokens-limit",
    type=click.IntRange(1, 1 << 16),
    default=256,
    show_default=True,
    help="Most tokens that a request may ask for.",
)
@click.option(
    "--target-ms",
    type=click.FloatRange(0.1),
    default=100,
    show_default=True,
    help="The latency that clients compare answers with.",
)
@click.option("--log-content", is_flag=True, help="Log inputs and answers, not only token counts.")
@click.option("--quiet", is_flag=True, help="Log no requests, only what goes wrong.")
@guardrail_options
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads that compute; default: what edge tune chose, else the cores, at most 4.",
)
def command(
    artifacts: tuple[str, ...],
    host: str,
    port: int,
    api_key_file: Path | None,
    max_body: int,
    max_new_tokens_limit: int,
    cors_origin: tuple[str, ...],
    threads: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Serve each ARTIFACT, a folder or NAME=folder, over HTTP.

    OpenAI's /v1/completions, /v1/chat/completions and /v1/models; /v1/generate with scores and
    timings; /health, /ready and /metrics. Every file's hash is checked before it is served.
    """
    rails = guardrails(options, max_new_tokens=max_new_tokens_limit)
    folders = name_artifacts(artifacts)
    keys = read_keys(api_key_file)
    _need_extra()
    from edge.runtime.model import load
    from edge.runtime.serve import ServeSettings, create_app
    from edge.runtime.serve.server import bind, serve

    settings: ServeSettings = ServeSettings(
        api_keys=keys, cors_origins=cors_origin, max_body_bytes=max_body, **options
    )
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, format="%(asctime)s %(message)s"
    )
    listener = bind(host, port)
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        models = {
            name: stack.enter_context(
                load(folder, threads=threads or _threads(folder), verify=True, guardrails=rails)
            )
            for name, folder in folders.items()
        }
        if host not in _LOCAL and not keys:
            click.echo(f"edge: {host} is open to others and no API key is set", err=True)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        click.echo(f"edge: serving {', '.join(models)} on {address}", err=True)
        app = create_app(models, settings)
        serve(app, listener)
        service = app.state.service
        click.echo(
            f"edge: ended; {service.accepted} requests accepted, {service.answered} answered,"
            f" {service.disconnected} whose client left",
            err=True,
        )


def name_artifacts(arguments: tuple[str, ...]) -> dict[str, Path]:
    """{"small": folder} from ("small=folder",); without a name, the folder's own.

    Raises:
        UsageError: a name that is given twice, or an empty one.
    """
    from edge.runtime.errors import UsageError

    folders: dict[str, Path] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not equals or Path(argument).is_dir():
            name, folder = Path(argument).resolve().name, argument
        if not name or not folder:
            raise UsageError(f"an artifact must be a folder or NAME=folder, not {argument!r}")
        if name in folders:
            raise UsageError(f"two artifacts are called {name!r}; tell them apart with NAME=folder")
        folders[name] = Path(folder)
    return folders


def _threads(folder: Path) -> int | None:
    """What `edge tune` chose (None), else the cores: unlike a library, a service has the machine to
    itself, and one engine with all threads answers sooner than an engine a core."""
    from edge.runtime.artifact.manifest import read_manifest
    from edge.runtime.platform.cpu import service_threads

    return None if "tuned" in read_manifest(folder).runtime else service_threads()


def read_keys(path: Path | None) -> tuple[str, ...]:
    """The API keys of the file and of the environment.

    Raises:
        UsageError: the file can't be read or holds none.
    """
    from edge.runtime.errors import UsageError

    keys = [os.environ.get(_KEY_VARIABLE, "").strip()]
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: can't be read ({error})") from None
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise UsageError(f"{path}: holds no API key")
        keys += found
    return tuple(key for key in keys if key)


def _need_extra() -> None:
    from edge.runtime.registry import missing_extra

    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("edge serve", str(error.name), "serve") from error
