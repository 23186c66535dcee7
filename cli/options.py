"""Options that several commands share."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from edge.cli.base import GroupedOption, Invocation
from edge.cli.param_types import COUNT, INPUT, OUTPUT, PATH, SEED

if TYPE_CHECKING:
    from edge.runtime.guardrails import Guardrails

F = TypeVar("F", bound=Callable[..., Any])
_MAX_SCHEMA_BYTES = 16 << 20


class Decorator(Protocol):
    """Adds an option to a function and returns it."""

    def __call__(self, function: F, /) -> F:
        """Add the option."""
        ...


FORMATS = ("torchscript", "onnx", "ctranslate2", "gguf")
FORCE_HELP = "Replace an existing output once the new one is complete."

_generation = partial(
    click.option, cls=GroupedOption, section="Generation (overrides the model's defaults)"
)
_GENERATION = (
    _generation("--max-new-tokens", type=int, metavar="N", help="Maximum tokens of an answer."),
    _generation("--min-new-tokens", type=int, metavar="N", help="Minimum tokens of an answer."),
    _generation("--num-beams", type=int, metavar="N", help="Beams; 1 is greedy search."),
    _generation("--length-penalty", type=float, help="Exponent of the length in beam search."),
    _generation("--do-sample", is_flag=True, default=None, help="Sample instead of greedy search."),
    _generation("--temperature", type=float, help="Sampling temperature."),
    _generation("--top-k", type=int, metavar="N", help="Sample from the N best tokens; 0: all."),
    _generation("--top-p", type=float, help="Sample from the best tokens of this probability."),
    _generation("--repetition-penalty", type=float, help="Above 1 discourages repetition."),
    _generation(
        "--no-repeat-ngram-size", type=int, metavar="N", help="Never repeat an n-gram of N tokens."
    ),
    _generation(
        "--prompt-lookup-num-tokens",
        type=int,
        metavar="N",
        help="Draft up to N tokens from the input: same answers, faster if they copy it.",
    ),
    _generation("--seed", type=SEED, help="Seed for sampling."),
    _generation("--stop", multiple=True, help="End an answer before this text; repeatable."),
)


def generation_options(function: F) -> F:
    """Add the generation options; the function gets them as keywords, None if not given."""
    for option in reversed(_GENERATION):
        function = option(function)
    return function


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The generation options that were given."""
    return {name: value for name, value in options.items() if value not in (None, ())}


def input_column_option(function: F) -> F:
    """Add `--input-column`."""
    return click.option(
        "--input-column", default="input", metavar="NAME", help="Column of the input."
    )(function)


def column_options(function: F) -> F:
    """Add `--input-column` and `--target-column`."""
    function = click.option(
        "--target-column", default="target", metavar="NAME", help="Column of the target."
    )(function)
    return input_column_option(function)


def output_option(text: str, **attributes: Any) -> Decorator:
    """Add `-o/--output`, required unless it has a default or `required=False`."""
    attributes.setdefault("required", "default" not in attributes)
    attributes.setdefault("type", PATH)
    return click.option("-o", "--output", help=text, **attributes)


def force_option(function: F) -> F:
    """Add `--force`."""
    return click.option("--force", is_flag=True, help=FORCE_HELP)(function)


def limit_option(function: F) -> F:
    """Add `-n/--limit`."""
    return click.option(
        "-n", "--limit", type=COUNT, metavar="N", help="Use only the first N rows."
    )(function)


def json_option(what: str) -> Decorator:
    """Add `--json FILE`, passed as `json_file`; `-` is standard output."""
    return click.option(
        "--json",
        "json_file",
        type=OUTPUT,
        metavar="FILE",
        help=f"Write {what} as JSON; - is standard output.",
    )


def _set_wide(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    invocation = ctx.find_object(Invocation)
    if value and invocation is not None:
        invocation.wide = True


def wide_option(function: F) -> F:
    """Add `--wide`, which `edge.cli.display.tables.print_table` reads."""
    return click.option(
        "--wide",
        is_flag=True,
        expose_value=False,
        callback=_set_wide,
        help="Print every table in one piece, wider than the terminal.",
    )(function)


def threads_option(default: str = "from edge tune, else 1") -> Decorator:
    """Add `--threads`; `default` says how the number is chosen without it."""
    return click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        metavar="N",
        show_default=default,
        help="Threads to compute with.",
    )


def trust_option(function: F) -> F:
    """Add `--trust-code`."""
    return click.option(
        "--trust-code",
        is_flag=True,
        help="Load TorchScript that you did not export on this machine. It is code, and runs.",
    )(function)


_guardrail = partial(click.option, cls=GroupedOption, section="Input and output checks")
_GUARDRAILS = (
    _guardrail(
        "--max-input-tokens",
        type=int,
        metavar="N",
        show_default="the artifact's limit",
        help="Maximum tokens of an input.",
    ),
    _guardrail(
        "--on-long",
        type=click.Choice(["error", "truncate", "chunk", "fallback"]),
        default="error",
        help="Action on a longer input; chunk: answer it in parts, split at sentence ends.",
    ),
    _guardrail(
        "--fallback",
        type=click.Choice(["echo", "empty"]),
        default="echo",
        help="Answer of --on-long fallback: the input itself, or nothing.",
    ),
    _guardrail("--output-regex", metavar="REGEX", help="Refuse answers that do not match fully."),
    _guardrail(
        "--output-schema",
        type=INPUT,
        metavar="FILE",
        help="Refuse answers that are not JSON of this JSON Schema.",
    ),
    _guardrail(
        "--profile",
        type=click.Choice(["conservative"]),
        help="conservative: 3 beams (or low-temperature sampling) and a repetition penalty.",
    ),
)


def guardrail_options(function: F) -> F:
    """Add limits and checks; the function gets them as keywords for `guardrails`."""
    for option in reversed(_GUARDRAILS):
        function = option(function)
    return function


def guardrails(values: dict[str, Any], **more: Any) -> Guardrails:
    """The guardrails given by the options, which are removed from `values`.

    Raises:
        UsageError: An invalid value, or a schema file that cannot be used.
    """
    from edge.runtime.errors import UsageError
    from edge.runtime.guardrails import Guardrails, OutputCheck
    from edge.runtime.text.output_checks import JsonOutput, RegexOutput

    pattern, schema = values.pop("output_regex"), values.pop("output_schema")
    check: OutputCheck | None = None
    if pattern is not None and schema is not None:
        raise UsageError("give --output-regex or --output-schema, not both")
    if pattern is not None:
        check = RegexOutput(pattern)
    elif schema is not None:
        check = JsonOutput(read_json_option(schema))
    names = ("max_input_tokens", "on_long", "fallback", "profile")
    return Guardrails(output=check, **{name: values.pop(name) for name in names}, **more)


def read_json_option(path: Path) -> Any:
    """The content of a JSON file that an option names.

    Raises:
        UsageError: It can't be read, is very large, or is not JSON.
    """
    from edge.runtime.errors import UsageError
    from edge.runtime.platform.json_file import read_json

    try:
        return read_json(path, _MAX_SCHEMA_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: can't be read ({error.strerror})") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def read_text_option(path: Path, max_bytes: int) -> str:
    """The content of a text file that an option names.

    Raises:
        UsageError: It can't be read, is larger than `max_bytes`, or is not UTF-8.
    """
    from edge.runtime.errors import UsageError

    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise UsageError(f"{path}: can't be read ({error.strerror})") from None
    if len(content) > max_bytes:
        raise UsageError(f"{path}: larger than {max_bytes >> 20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8") from None


def command_line() -> str:
    """The command line as given, for a report; empty outside of a command."""
    context = click.get_current_context(silent=True)
    invocation = context.find_object(Invocation) if context else None
    return shlex.join(["edge", *invocation.arguments]) if invocation else ""
