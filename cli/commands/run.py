"""`edge run`: answers for a text, a file, or whatever comes through standard input."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.options import (
    generation_options,
    given,
    guardrail_options,
    guardrails,
    threads_option,
)

if TYPE_CHECKING:
    from edge.runtime.model import Generation, Model

_BATCH = 16


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("text", required=False)
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path),
    help="A .jsonl file of rows, or a text file with one input a line.",
)
@click.option(
    "--output",
    "output_file",
    type=click.Path(path_type=Path),
    help="Where the answers go (for --input); default: standard output.",
)
@click.option("--input-column", default="input", show_default=True, help="Column of the input.")
@click.option(
    "--field", "fields", multiple=True, help="name=value for a field of the prompt (repeatable)."
)
@click.option("--stream", is_flag=True, help="Print the answer to TEXT as it is made.")
@click.option("--json", "as_json", is_flag=True, help="Print scores, token ids and timings too.")
@guardrail_options
@threads_option
@generation_options
def command(
    artifact: Path,
    text: str | None,
    input_file: Path | None,
    output_file: Path | None,
    input_column: str,
    fields: tuple[str, ...],
    stream: bool,
    as_json: bool,
    threads: int | None,
    **options: Any,
) -> None:
    """Answer TEXT, every row of --input, or every line of standard input.

    A .jsonl row keeps its columns and gains "output"; a line of text becomes a line of text.
    """
    from edge.runtime.errors import UsageError
    from edge.runtime.model import load

    if text is not None and input_file is not None:
        raise UsageError("give TEXT or --input, not both")
    if output_file is not None and input_file is None:
        raise UsageError("--output goes with --input")
    if stream and (text is None or as_json):
        raise UsageError("--stream goes with TEXT, without --json")
    rails = guardrails(options)
    call = given(options)
    values = parse_fields(fields)
    with load(artifact, threads=threads, guardrails=rails) as model:
        if text is not None and stream:
            with model.stream(text, fields=values, **call) as pieces:
                for piece in pieces:
                    click.echo(piece, nl=False)
                    sys.stdout.flush()
            click.echo()
        elif text is not None:
            click.echo(_line(model.generate(text, fields=values, **call), as_json))
        elif input_file is not None:
            _run_file(model, input_file, output_file, input_column, values, as_json, call)
        else:
            _filter(model, values, as_json, call)


def parse_fields(fields: tuple[str, ...]) -> dict[str, str]:
    """{"task": "linux"} from ("task=linux",).

    Raises:
        UsageError: one without a name or a "=".
    """
    from edge.runtime.errors import UsageError

    values = {}
    for field in fields:
        name, equals, value = field.partition("=")
        if not name or not equals:
            raise UsageError(f"--field must be name=value, not {field!r}")
        values[name] = value
    return values


def _line(answer: Generation, as_json: bool) -> str:
    return json.dumps(_as_dict(answer), ensure_ascii=False) if as_json else answer.text


def _as_dict(answer: Generation) -> dict[str, Any]:
    values = dataclasses.asdict(answer)
    values["timings"]["total_ms"] = answer.timings.total_ms
    return values


def _filter(model: Model, fields: dict[str, str], as_json: bool, call: dict[str, Any]) -> None:
    """Each line is answered as it comes, so that a pipe in front may wait for it."""
    from edge.runtime.errors import DataError

    for number, raw in enumerate(sys.stdin.buffer, start=1):
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise DataError("not UTF-8", path="standard input", line=number) from None
        answer = _line(model.generate(line, fields=fields, **call), as_json) if line.strip() else ""
        click.echo(answer)
        sys.stdout.flush()


def _run_file(
    model: Model,
    input_file: Path,
    output_file: Path | None,
    input_column: str,
    fields: dict[str, str],
    as_json: bool,
    call: dict[str, Any],
) -> None:
    from edge.runtime.atomic import new_file

    lines = _answered_lines(model, input_file, input_column, fields, as_json, call)
    if output_file is None:
        for line in lines:
            click.echo(line)
        return
    count = 0
    with new_file(output_file) as staging, staging.open("w", encoding="utf-8") as handle:
        for line in lines:
            handle.write(line + "\n")
            count += 1
    click.echo(f"{count} answers written to {output_file}", err=True)


def _answered_lines(
    model: Model,
    path: Path,
    input_column: str,
    fields: dict[str, str],
    as_json: bool,
    call: dict[str, Any],
) -> Iterator[str]:
    batch: list[tuple[str, dict[str, object]]] = []
    rows_are_json = path.suffix in (".jsonl", ".json")
    for item in _inputs(path, input_column, rows_are_json):
        batch.append(item)
        if len(batch) == _BATCH:
            yield from _answer_batch(model, batch, fields, rows_are_json, as_json, call)
            batch = []
    if batch:
        yield from _answer_batch(model, batch, fields, rows_are_json, as_json, call)


def _inputs(
    path: Path, input_column: str, rows_are_json: bool
) -> Iterator[tuple[str, dict[str, object]]]:
    from edge.runtime.errors import DataError
    from edge.runtime.rows import Columns, iter_lines, iter_rows

    count = 0
    if rows_are_json:
        for row in iter_rows(path, Columns(input=input_column), need_target=False):
            count += 1
            yield row.input, dict(row.fields)
    else:
        for line in iter_lines(path):
            count += 1
            yield line, {}
    if not count:
        raise DataError("the file has no rows", path=path)


def _answer_batch(
    model: Model,
    batch: list[tuple[str, dict[str, object]]],
    fields: dict[str, str],
    rows_are_json: bool,
    as_json: bool,
    call: dict[str, Any],
) -> Iterator[str]:
    answers = model.generate(
        [text for text, _ in batch], fields=[{**row, **fields} for _, row in batch], **call
    )
    for (_, row), answer in zip(batch, answers, strict=True):
        if not rows_are_json:
            yield _line(answer, as_json)
        else:
            extra = {"generation": _as_dict(answer)} if as_json else {}
            yield json.dumps({**row, "output": answer.text, **extra}, ensure_ascii=False)
