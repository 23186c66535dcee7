"""The entry point: finds a subcommand, runs it, and turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from edge.runtime.errors import EdgeError, one_line
from edge.runtime.registry import unknown_name
from edge.runtime.version import edge_version

# Name → the line in `edge --help`. A command's module is imported when the command is used.
COMMANDS = {
    "quickstart": "Train, export, verify and benchmark a small model, to see it all work.",
    "data": "Look at rows, split them, and make more of them, before training.",
    "check": "Look at what a training run would do, before it does.",
    "train": "Fine-tune a T5-family model on rows of text → text.",
    "runs": "Show the curves of trainings, running or finished.",
    "merge": "Merge a LoRA adapter into its base model.",
    "presets": "List the sets of training options, by environment and by aim.",
    "export": "Compile a model to TorchScript, ONNX, CTranslate2 or GGUF.",
    "compile": "Find the fastest artifact of a model that is accurate enough, and write it.",
    "bench": "Compare artifacts' accuracy and latency against a target.",
    "report": "Show a benchmark again: tables, Markdown, a page with plots.",
    "tune": "Choose an artifact's threads and engine settings by measuring them here.",
    "run": "Answer a text, a file, or standard input.",
    "serve": "Serve artifacts over HTTP, as OpenAI's API does.",
    "chat": "Talk with an artifact, or with a service.",
    "verify": "Check an artifact's files, and its parity with its source.",
    "info": "Show what an artifact is.",
}
_INTERRUPTED = 130


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"edge.cli.commands.{cmd_name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(unknown_name("command", args[0], tuple(COMMANDS)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"edge {edge_version()}")
        ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli(debug: bool) -> None:
    """Fine-tune a T5-family model, compile it for the CPU, and measure that it answers in time."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failure, 2 usage or bad input, 3 target missed."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments or bool(os.environ.get("EDGE_DEBUG"))
    # Accepted anywhere: whoever adds it to a failed command puts it last.
    arguments = [argument for argument in arguments if argument != "--debug"]
    sys.exit(_run(arguments, debug))


def _run(arguments: list[str], debug: bool) -> int:
    try:
        status = cli.main(arguments, prog_name="edge", standalone_mode=False, obj=arguments)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.UsageError as error:
        if debug:
            raise
        command = error.ctx.command_path if error.ctx else "edge"
        return _say(f"{error.format_message()} (see {command} --help)", 2)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except EdgeError as error:
        if debug:
            raise
        return _say(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, say) has seen enough; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        return _say(
            f"unexpected {type(error).__name__}: {one_line(error)}"
            " (run it again with --debug for the traceback, and report it)",
            1,
        )


def _say(message: str, status: int) -> int:
    click.echo(f"edge: {' '.join(message.split())}", err=True)
    return status
