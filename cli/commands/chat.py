"""`edge chat`: a conversation in the terminal, or lines through a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.options import generation_options, given, threads_option

if TYPE_CHECKING:
    from edge.runtime.chat import AnswerStats, Chat

_HELP = """\
/stats   what each answer took, against the target
/clear   forget the conversation
/help    this
/quit    end (so does Ctrl-D)
Ctrl-C ends an answer; a line that begins with // is sent with one /."""


@click.command()
@click.argument("artifact", required=False, type=click.Path(path_type=Path))
@click.option("--url", help="A service in place of ARTIFACT, such as http://127.0.0.1:8080.")
@click.option("--model", "model_name", help="Which of the service's models; default: the first.")
@click.option(
    "--chat",
    "mode",
    type=click.Choice(["last", "conversation"]),
    default="last",
    show_default=True,
    help="What ARTIFACT reads: the last message, or all of them.",
)
@click.option(
    "--target-ms",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
    help="What an answer may take.",
)
@threads_option
@generation_options
def command(
    artifact: Path | None,
    url: str | None,
    model_name: str | None,
    mode: str,
    target_ms: float,
    threads: int | None,
    **generation: Any,
) -> int:
    """Chat with ARTIFACT, or with a service that speaks OpenAI's API.

    Through a pipe, each line of standard input becomes one line; exits with 1 if one had no answer.
    A service's key is read from the environment variable EDGE_API_KEY.
    """
    from edge.runtime.errors import UsageError

    if (artifact is None) == (url is None):
        raise UsageError("give an ARTIFACT or --url, one of them")
    if artifact is None and (threads is not None or mode != "last"):
        raise UsageError("--threads and --chat are the service's to choose")
    if url is None and model_name is not None:
        raise UsageError("--model goes with --url")
    with _opened(artifact, url, model_name, mode, threads, given(generation)) as chat:
        if sys.stdin.isatty() and sys.stdout.isatty():
            return _Terminal(chat, target_ms).run(str(artifact or url))
        return _Pipe(chat, target_ms).run()


@contextlib.contextmanager
def _opened(
    artifact: Path | None,
    url: str | None,
    model_name: str | None,
    mode: str,
    threads: int | None,
    call: dict[str, Any],
) -> Iterator[Chat]:
    from edge.runtime.chat import LocalChat, RemoteChat
    from edge.runtime.model import load

    if artifact is None:
        assert url is not None
        key = os.environ.get("EDGE_API_KEY")
        yield RemoteChat(url, model=model_name, api_key=key, options=call)
        return
    with load(artifact, threads=threads) as model:
        yield LocalChat(model, call, whole_conversation=mode == "conversation")


class _Repl:
    """What a terminal and a pipe have in common: commands, and one line for an error."""

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
                self._obey(text[1:])
            else:
                self._answer(text[1:] if text.startswith("//") else text)
        except EdgeError as error:
            self._complain(str(error))

    def _complain(self, message: str) -> None:
        self._failed = True
        click.echo(f"edge: {' '.join(message.split())}", err=True)

    def _obey(self, name: str) -> None:
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
    """No prompts, no colors: a line in, a line out."""

    def run(self) -> int:
        for number, raw in enumerate(sys.stdin.buffer, start=1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError:
                self._complain(f"standard input:{number}: not UTF-8")
                continue
            self._handle(line)
            if self._ended:
                break
        return int(self._failed)

    def _answer(self, text: str) -> None:
        click.echo(" ".join("".join(self._chat.ask(text)).splitlines()))
        sys.stdout.flush()


class _Terminal(_Repl):
    """A prompt with line editing, answers as they are made, and below each what it took."""

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
                self._complain("that was no UTF-8")
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
                click.secho(" (ended)", dim=True)
                return
            finally:
                sys.stdout.flush()
        taken = self._chat.answers[-1]
        click.echo()
        color = "green" if taken.total_ms <= self._target_ms else "red"
        click.secho(_taken(taken), fg=color, dim=True)


def _taken(answer: AnswerStats) -> str:
    tokens = "" if answer.tokens is None else f", {answer.tokens} tokens"
    return f"{answer.total_ms:.0f} ms (first text after {answer.first_ms:.0f}){tokens}"


def stats_lines(answers: list[AnswerStats], target_ms: float) -> list[str]:
    """A line for each answer, and one over all of them: how many met the target, the median."""
    import statistics

    if not answers:
        return ["no answers yet"]
    lines = [
        f"{number:>4}  {'ok  ' if answer.total_ms <= target_ms else 'late'}  {_taken(answer)}"
        for number, answer in enumerate(answers, start=1)
    ]
    totals = [answer.total_ms for answer in answers]
    met = sum(total <= target_ms for total in totals)
    return [
        *lines,
        f"{met} of {len(totals)} within {target_ms:g} ms;"
        f" median {statistics.median(totals):.0f} ms, slowest {max(totals):.0f} ms",
    ]
