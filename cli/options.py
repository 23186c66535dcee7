"""Options that several subcommands share."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edge.runtime.guardrails import Guardrails

F = TypeVar("F", bound=Callable[..., Any])
_MAX_SCHEMA_BYTES = 16 << 20

_GENERATION = (
    click.option("--max-new-tokens", type=int, help="Most tokens of an answer."),
    click.option("--min-new-tokens", type=int, help="Fewest tokens of an answer."),
    click.option("--num-beams", type=int, help="Beams; 1 is greedy search."),
    click.option("--length-penalty", type=float, help="Beams' exponent on the length."),
    click.option("--do-sample", is_flag=True, default=None, help="Sample instead of greedy."),
    click.option("--temperature", type=float, help="Sampling temperature."),
    click.option("--top-k", type=int, help="Sample among the k best tokens; 0 for all."),
    click.option("--top-p", type=float, help="Sample among the best tokens of this mass."),
    click.option("--repetition-penalty", type=float, help="Above 1 discourages repeats."),
    click.option("--no-repeat-ngram-size", type=int, help="Never repeat n-grams of this size."),
    click.option(
        "--prompt-lookup-num-tokens",
        type=int,
        help="Longest draft from the input (onnx): faster where answers copy, the same answers.",
    ),
    click.option("--seed", type=int, help="Make sampling repeatable."),
    click.option("--stop", multiple=True, help="End an answer before this text (repeatable)."),
)


def generation_options(function: F) -> F:
    """The generation options; the function gets them as keywords, None where not given."""
    for option in reversed(_GENERATION):
        function = option(function)
    return function


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the generation options that were given."""
    return {name: value for name, value in options.items() if value not in (None, ())}


def column_options(function: F) -> F:
    """Which columns of the data are read."""
    function = click.option(
        "--target-column", default="target", show_default=True, help="Column of the target."
    )(function)
    return click.option(
        "--input-column", default="input", show_default=True, help="Column of the input."
    )(function)


def numbers(
    ctx: click.Context, option: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """A callback for an option that takes whole numbers with commas between them."""
    if value is None:
        return None
    try:
        return tuple(int(number) for number in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no list of whole numbers, such as 1,8", ctx, option
        ) from None


def command_line() -> str:
    """The command line as it was given, for a report; empty outside of a command."""
    context = click.get_current_context(silent=True)
    arguments = context.find_root().obj if context else None
    return shlex.join(["edge", *arguments]) if arguments else ""


def threads_option(function: F) -> F:
    """How many threads an engine computes with."""
    return click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="Threads that compute; default: what edge tune chose, else 1.",
    )(function)


_GUARDRAILS = (
    click.option("--max-input-tokens", type=int, help="A lower limit than the artifact's."),
    click.option(
        "--on-long",
        type=click.Choice(["error", "truncate", "chunk", "fallback"]),
        default="error",
        show_default=True,
        help="An input over the limit: refuse it, cut it, answer it part by part (split at sentence"
        " ends), or let --fallback answer.",
    ),
    click.option(
        "--fallback",
        type=click.Choice(["echo", "empty"]),
        default="echo",
        show_default=True,
        help="What --on-long fallback answers: the input itself, or nothing.",
    ),
    click.option("--output-regex", help="Refuse answers that this pattern does not match whole."),
    click.option(
        "--output-schema",
        type=click.Path(path_type=Path),
        help="A JSON Schema file: refuse answers that are no such JSON.",
    ),
    click.option(
        "--profile",
        type=click.Choice(["conservative"]),
        help="conservative: 3 beams (else cold sampling) and a penalty on repeats.",
    ),
)


def guardrail_options(function: F) -> F:
    """Limits and checks; the function gets them as keywords for `guardrails`."""
    for option in reversed(_GUARDRAILS):
        function = option(function)
    return function


def guardrails(values: dict[str, Any], **more: Any) -> Guardrails:
    """The guardrails that the options ask for, which are taken out of `values`.

    Raises:
        UsageError: a bad value, or a schema file that can't be used.
    """
    from edge.runtime.errors import UsageError
    from edge.runtime.guardrails import Guardrails, OutputCheck
    from edge.runtime.platform.json_file import read_json
    from edge.runtime.text.output_checks import JsonOutput, RegexOutput

    pattern, schema = values.pop("output_regex"), values.pop("output_schema")
    check: OutputCheck | None = None
    if pattern is not None and schema is not None:
        raise UsageError("give --output-regex or --output-schema, not both")
    if pattern is not None:
        check = RegexOutput(pattern)
    elif schema is not None:
        try:
            check = JsonOutput(read_json(schema, _MAX_SCHEMA_BYTES))
        except OSError as error:
            raise UsageError(f"{schema}: can't be read ({error.strerror})") from None
        except ValueError as error:
            raise UsageError(f"{schema}: {error}") from None
    names = ("max_input_tokens", "on_long", "fallback", "profile")
    return Guardrails(output=check, **{name: values.pop(name) for name in names}, **more)
