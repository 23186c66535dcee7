"""`edge chat`: a chat in the terminal, or line by line through a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.base import Command
from edge.cli.options import generation_options, given, threads_option, trust_option
from edge.cli.param_types import PATH, POSITIVE
from edge.cli.standard_input import input_lines

if TYPE_CHECKING:
    from edge.runtime.chat import AnswerStats, Chat

_HELP = """\
/stats   show the time of each answer, compared with the target
/clear   clear the conversation
/help    show this help
/quit    quit (also Ctrl-D)
Ctrl-C stops an answer. Start a line with // to send a line that begins with /."""


@click.command(cls=Command)
@click.argument("artifact", required=False, type=PATH)
@click.option("--url", help="Service to use instead of ARTIFACT, e.g. http://127.0.0.1:8080.")
@click.option(
    "-m",
    "--model",
    "model_name",
    metavar="NAME",
    show_default="the first",
    help="Model of the service.",
)
@click.option(
    "--chat",
    "mode",
    type=click.Choice(["last", "conversation"]),
    default="last",
    help="Input of ARTIFACT: the last message, or all messages.",
)
@click.option(
    "--target-ms",
    type=POSITIVE,
    default=100.0,
    metavar="MS",
    help="Target latency of an answer.",
)
@threads_option()
@trust_option
@generation_options
def command(
    artifact: Path | None,
    url: str | None,
    model_name: str | None,
    mode: str,
    target_ms: float,
    threads: int | None,
    trust_code: bool,
    **generation: Any,
) -> int:
    """Chat with ARTIFACT, or with a service that has an OpenAI-compatible API.

    In a pipe, each line of standard input is answered with one line. It is blank for a blank line
    and for one without an answer; after such a failure the command exits with 1. The API key is
    read from the environment variable EDGE_API_KEY.
    """
    from edge.runtime.errors import UsageError

    if (artifact is None) == (url is None):
        raise UsageError("give ARTIFACT or --url, exactly one of them")
    if artifact is None and (threads is not None or mode != "last"):
        raise UsageError("--threads and --chat need ARTIFACT; with --url the service sets them")
    if url is None and model_name is not None:
        raise UsageError("--model needs --url")
    with _opened(artifact, url, model_name, mode, threads, trust_code, given(generation)) as chat:
        if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
            return _Terminal(chat, target_ms).run(str(artifact or url))
        return _Pipe(chat, target_ms).run()


@contextlib.contextmanager
def _opened(
    artifact: Path | None,
    url: str | None,
    model_name: str | None,
    mode: str,
    threads: int | None,
    trust_code: bool,
    call: dict[str, Any],
) -> Iterator[Chat]:
    from edge.runtime.chat import LocalChat, RemoteChat
    from edge.runtime.model import load

    if artifact is None:
        assert url is not None
        key = os.environ.get("EDGE_API_KEY")
        yield RemoteChat(url, model=model_name, api_key=key, options=call)
        return
    with load(artifact, threads=threads, trust_code=trust_code) as model:
        yield LocalChat(model, call, whole_conversation=mode == "conversation")


class _Repl:
    """The commands and error messages shared by terminal and pipe."""

    def __init__(self, chat: Chat, target_ms: float) -> None:
        self._chat = chat
        self._target_ms = target_ms
        self._failed = False
        self._ended = False

    def _handle(self, line: str) -> None:
        from edge.runtime.errors import EdgeError

        text = line.strip()
        try:
            if not text:
                return
            if text.startswith("/") and not text.startswith("//"):
                self._run_command(text[1:])
            else:
                self._answer(text[1:] if text.startswith("//") else text)
        except EdgeError as error:
            self._print_error(str(error))

    def _print_error(self, message: str) -> None:
        self._failed = True
        click.echo(f"edge: {' '.join(message.split())}", err=True)

    def _run_command(self, name: str) -> None:
        from edge.runtime.errors import UsageError
        from edge.runtime.registry import unknown_name

        known = ("help", "stats", "clear", "quit")
        if name not in known:
            raise UsageError(unknown_name("command", name, known))
        if name == "help":
            click.echo(_HELP)
        elif name == "stats":
            click.echo("\n".join(stats_lines(self._chat.answers, self._target_ms)))
        elif name == "clear":
            self._chat.clear()
        else:
            self._ended = True

    def _answer(self, text: str) -> None:
        raise NotImplementedError


class _Pipe(_Repl):
    """One line out for each line in, without prompts or colors.

    A blank line, and one that has no answer, is answered with a blank line. Commands print what
    they show.
    """

    def run(self) -> int:
        for number, raw in input_lines():
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError:
                self._print_error(f"standard input:{number}: not UTF-8")
                continue
            self._handle(line)
            if self._ended:
                break
        return int(self._failed)

    def _handle(self, line: str) -> None:
        if line.strip():
            super()._handle(line)
        else:
            self._print_blank()

    def _print_error(self, message: str) -> None:
        super()._print_error(message)
        self._print_blank()

    def _print_blank(self) -> None:
        click.echo()
        sys.stdout.flush()

    def _answer(self, text: str) -> None:
        click.echo(" ".join("".join(self._chat.ask(text)).splitlines()))
        sys.stdout.flush()


class _Terminal(_Repl):
    """A prompt with line editing; answers are streamed, each with its time below."""

    def run(self, name: str) -> int:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # arrow keys and history in input(), in memory only

        click.echo(f"{name} — /help for help")
        while not self._ended:
            try:
                line = input("> ")
            except EOFError:
                click.echo()
                break
            except KeyboardInterrupt:
                click.echo()
                continue
            except UnicodeDecodeError:
                self._print_error("the line is not UTF-8")
                continue
            self._handle(line)
        return 0

    def _answer(self, text: str) -> None:
        with contextlib.closing(self._chat.ask(text)) as pieces:
            try:
                for piece in pieces:
                    click.echo(piece, nl=False)
                    sys.stdout.flush()
            except KeyboardInterrupt:
                click.secho(" (stopped)", dim=True)
                return
            finally:
                sys.stdout.flush()
        answer = self._chat.answers[-1]
        click.echo()
        color = "green" if answer.total_ms <= self._target_ms else "red"
        click.secho(_timing(answer), fg=color, dim=True)


def _timing(answer: AnswerStats) -> str:
    tokens = "" if answer.tokens is None else f", {answer.tokens} tokens"
    return f"{answer.total_ms:.0f} ms (first text after {answer.first_ms:.0f}){tokens}"


def stats_lines(answers: list[AnswerStats], target_ms: float) -> list[str]:
    """One line per answer, and a summary: answers within the target, median and slowest."""
    import statistics

    if not answers:
        return ["no answers yet"]
    lines = [
        f"{number:>4}  {'ok  ' if answer.total_ms <= target_ms else 'late'}  {_timing(answer)}"
        for number, answer in enumerate(answers, start=1)
    ]
    totals = [answer.total_ms for answer in answers]
    met = sum(total <= target_ms for total in totals)
    return [
        *lines,
        f"{met} of {len(totals)} within {target_ms:g} ms;"
        f" median {statistics.median(totals):.0f} ms, slowest {max(totals):.0f} ms",
    ]
