"""Options that constrain an answer's text, and the files that they name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from edge.cli.base import GroupedOption
from edge.cli.options import F, given, read_json_option, read_text_option
from edge.cli.param_types import INPUT

_MAX_GRAMMAR_BYTES = 16 << 20
_constraint = partial(
    click.option, cls=GroupedOption, section="Constraints on the answer (onnx, gguf, torchscript)"
)
_CONSTRAINTS = (
    _constraint(
        "--choice",
        "choices",
        multiple=True,
        metavar="TEXT",
        help="Answer with one of these texts; repeatable.",
    ),
    _constraint("--regex", metavar="REGEX", help="Answer with a text that matches fully."),
    _constraint(
        "--json-schema",
        metavar="FILE|JSON",
        help="Answer with JSON of this JSON Schema: a file, or {…} itself.",
    ),
    _constraint(
        "--grammar", type=INPUT, metavar="FILE", help="Answer with a text of this Lark grammar."
    ),
    _constraint(
        "--copy-only", is_flag=True, default=None, help="Answer with words and signs of the input."
    ),
    _constraint(
        "--copy-allow",
        multiple=True,
        metavar="TEXT",
        help="With --copy-only, also with those of this text; repeatable.",
    ),
)


def constraint_options(function: F) -> F:
    """Add the constraints; the function gets them as keywords for `constraints`."""
    for option in reversed(_CONSTRAINTS):
        function = option(function)
    return function


def constraints(values: dict[str, Any]) -> dict[str, Any]:
    """The constraints given by the options, which are removed from `values`.

    Raises:
        UsageError: A file can't be used.
    """
    names = ("choices", "regex", "json_schema", "grammar", "copy_only", "copy_allow")
    found = given({name: values.pop(name) for name in names})
    schema = found.get("json_schema", "")
    if schema and not schema.lstrip().startswith("{"):
        found["json_schema"] = read_json_option(Path(schema))
    if "grammar" in found:
        found["grammar"] = read_text_option(found["grammar"], _MAX_GRAMMAR_BYTES)
    return found
