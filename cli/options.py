"""Options that several subcommands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

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


def threads_option(function: F) -> F:
    """How many threads an engine computes with."""
    return click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="Threads that compute; default: what edge tune chose, else 1.",
    )(function)
