"""Entry point: runs a command and turns errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

from edge.cli.base import Group, Invocation
from edge.cli.streams import prepare_streams, undecoded_hint
from edge.runtime.errors import EdgeError, MissingExtraError, missing_library, one_line
from edge.runtime.printing import printable
from edge.runtime.registry import unknown_name
from edge.runtime.version import edge_version

# Name → the line in `edge --help`. The command's module is imported only when it is used.
COMMANDS = {
    "quickstart": "Train, export and benchmark a small demo model.",
    "data": "Inspect, split and augment training rows.",
    "check": "Check a training run for problems before it starts.",
    "train": "Fine-tune a T5-family model on rows of text → text.",
    "runs": "Show the training curves of running or finished runs.",
    "merge": "Merge a LoRA adapter into its base model.",
    "presets": "List the presets for edge train.",
    "export": "Compile a model to ONNX, CTranslate2, GGUF or TorchScript.",
    "draft": "Fit heads that draft answers as edits of the input.",
    "compile": "Search for the fastest artifact that is accurate enough.",
    "bench": "Compare the accuracy and latency of artifacts.",
    "bench-engines": "Compare the speed of engines on a model or a model shape.",
    "bench-speculation": "Measure the speedup of drafts copied from the input.",
    "compare": "Compare two benchmark reports.",
    "report": "Show a benchmark report again, or convert it.",
    "tune": "Choose threads and engine settings by measurement.",
    "run": "Answer a text, a file or standard input.",
    "serve": "Serve artifacts over an OpenAI-compatible HTTP API.",
    "chat": "Chat with an artifact or a service.",
    "verify": "Check the files and the parity of an artifact.",
    "info": "Show the manifest of an artifact.",
    "push": "Upload an artifact or a model to the Hugging Face hub.",
    "version": "Show the version.",
}
# Command → the extra that is named for a missing library, if it installs that library.
EXTRAS = {
    **dict.fromkeys(("data", "check", "train", "merge", "presets"), "train"),
    **dict.fromkeys(
        ("quickstart", "export", "draft", "compile", "verify", "bench-engines"), "export"
    ),
    **dict.fromkeys(("bench", "compare", "report", "bench-speculation"), "bench"),
    "push": "hub",
    "serve": "serve",
}
_INTERRUPTED = 130
_WRITE_ERRORS = {errno.ENOSPC: "no space left on device", errno.EBADF: "it is closed"}


class _PipeClosedError(Exception):
    """The reader of standard output, such as head, has gone. click would exit with 1."""


@contextlib.contextmanager
def _closed_pipes() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _PipeClosedError from error


class _LazyGroup(Group):
    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with _closed_pipes():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _closed_pipes():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"edge.cli.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(unknown_name("command", args[0], tuple(COMMANDS)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read `-v` alone as `--version`, as other tools do; before a command it is `--verbose`."""
        return super().parse_args(ctx, ["--version"] if args == ["-v"] else args)


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"edge {edge_version()}")
        ctx.exit()


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Fine-tune a T5-family model, compile it for CPUs, and verify its latency."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 success, 1 failure, 2 bad usage or input, 3 target missed.

    Args:
        arguments: Without the program's name; by default those of the process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # warnings that users can't act on
    if sys.stdout is None:  # closed by the caller, as `>&-` does: the first write fails
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    prepare_streams(arguments)
    sys.exit(_run(Invocation(arguments, verbose=bool(os.environ.get("EDGE_DEBUG")))))


def _run(invocation: Invocation) -> int:
    try:
        status = cli.main(
            list(invocation.arguments), prog_name="edge", standalone_mode=False, obj=invocation
        )
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.UsageError as error:
        if invocation.verbose:
            raise
        command = error.ctx.command_path if error.ctx else "edge"
        return _print_error(f"{error.format_message()} (see {command} --help)", 2)
    except click.ClickException as error:
        return _print_error(error.format_message(), error.exit_code)
    except EdgeError as error:
        if invocation.verbose:
            raise
        cause = error.cause_of_call if isinstance(error, MissingExtraError) else None
        shown = (_missing_library(cause, invocation) if cause else None) or error
        hint = undecoded_hint(invocation.arguments) if "surrogate" in str(shown) else ""
        return _print_error(f"{shown}{hint}", error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _print_error("interrupted", _INTERRUPTED)
    except (BrokenPipeError, _PipeClosedError):
        _discard_stdout()
        return 0
    except Exception as error:
        if isinstance(error, UnicodeEncodeError):
            _discard_stdout()
            character = printable(error.object[error.start])
            return _print_error(
                f"standard output can't hold {character!a} in its encoding,"
                f" {error.encoding}. Set PYTHONIOENCODING=utf-8",
                1,
            )
        if isinstance(error, OSError) and error.errno in _WRITE_ERRORS and error.filename is None:
            _discard_stdout()
            reason = _WRITE_ERRORS[error.errno]
            return _print_error(f"standard output can't be written: {reason}", 1)
        if invocation.verbose:
            raise
        if isinstance(error, PermissionError) and error.filename is not None:
            return _print_error(f"{error.filename}: {error.strerror}", 2)
        if missing := _missing_library(error, invocation):
            return _print_error(str(missing), missing.exit_code)
        return _print_error(
            f"unexpected {type(error).__name__}: {one_line(error)}"
            " (run the command again with --verbose and report the traceback)",
            1,
        )


def _missing_library(error: Exception, invocation: Invocation) -> EdgeError | None:
    """The error that names the extra of a missing library, by the command that needs it."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    words = [word for word in invocation.arguments if not word.startswith("-")]
    command = words[0] if words else ""
    return missing_library(error, f"edge {command}".rstrip(), EXTRAS.get(command, ""))


def _discard_stdout() -> None:
    """Keep Python from reporting a failed write once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(message: str, status: int) -> int:
    click.echo(f"edge: {printable(' '.join(message.split()))}", err=True)
    return status
