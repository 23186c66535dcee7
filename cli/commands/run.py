"""`edge run`: answers for a text, files or standard input."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.base import Command
from edge.cli.constraint_options import constraint_options, constraints
from edge.cli.display.json_output import STDOUT
from edge.cli.options import (
    generation_options,
    given,
    guardrail_options,
    guardrails,
    input_column_option,
    threads_option,
    trust_option,
)
from edge.cli.param_types import INPUT, OUTPUT, PATH
from edge.cli.standard_input import announce, input_lines

if TYPE_CHECKING:
    from edge.runtime.batch.job import BatchJob
    from edge.runtime.model import Model


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.argument("text", required=False)
@click.option(
    "--input",
    "input_file",
    type=INPUT,
    help="Rows (JSON, CSV, TSV, Parquet), lines of text, or a folder or quoted pattern of"
    " .jsonl and .parquet files.",
)
@click.option(
    "-o",
    "--output",
    "output_file",
    type=OUTPUT,
    show_default="standard output",
    help="File for the answers to --input, or a folder for many files.",
)
@click.option("--force", is_flag=True, help="Replace an existing output or an unfinished run.")
@input_column_option
@click.option(
    "--output-column",
    default="output",
    metavar="NAME",
    help="Column for the answer to a row. The row must not have it yet.",
)
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of a field of the prompt; repeatable.",
)
@click.option("--stream", is_flag=True, help="Print the answer to TEXT while it is generated.")
@click.option(
    "--jsonl",
    "as_json",
    is_flag=True,
    help="Print each answer as a JSON object with score, token ids and timings.",
)
@click.option(
    "--executor",
    default="local",
    metavar="local|ray",
    help="Where the workers for many files run.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 4096),
    metavar="N",
    show_default="the cores ÷ --threads",
    help="Workers: for many files, processes that load the model; for one file, batches at the same"
    " time (onnx, torchscript).",
)
@threads_option()
@trust_option
@guardrail_options
@generation_options
@constraint_options
def command(
    artifact: Path,
    text: str | None,
    input_file: Path | None,
    output_file: Path | None,
    input_column: str,
    output_column: str,
    fields: tuple[str, ...],
    stream: bool,
    force: bool,
    executor: str,
    workers: int | None,
    as_json: bool,
    threads: int | None,
    trust_code: bool,
    **options: Any,
) -> None:
    """Answer TEXT, every row of --input, or every line of standard input, which - stands for, too.

    A row keeps its columns and gains a column with the answer. A line of text is answered with a
    line of text. Files of a folder or pattern are shared among workers; --output is then a folder.

    With --output, answers are saved continuously. After a crash, run the same command without
    --force to continue.
    """
    from edge.cli.display.batch import answer_dataset
    from edge.runtime.batch.job import BatchJob, format_generation
    from edge.runtime.batch.shards import is_dataset
    from edge.runtime.errors import UsageError
    from edge.runtime.hub.artifacts import artifact_folder
    from edge.runtime.model import load

    if output_file == STDOUT:
        output_file = None
    if text is not None and input_file is not None:
        raise UsageError("give TEXT or --input, not both")
    if text == "-":
        text = None
    if output_file is not None and input_file is None:
        raise UsageError("--output needs --input")
    if force and output_file is None:
        raise UsageError("--force needs --output")
    if stream and (text is None or as_json):
        raise UsageError("--stream needs TEXT and can't be combined with --jsonl")
    rails = guardrails(options)
    call = constraints(options)
    call |= given(options)
    values = parse_fields(fields)
    artifact = artifact_folder(artifact)
    job = BatchJob(
        artifact, input_column, values, as_json, call, threads, rails, trust_code, output_column
    )
    if input_file is not None and is_dataset(input_file):
        if output_file is None:
            raise UsageError(f"--input {input_file} names many files; give a folder with --output")
        answer_dataset(job, input_file, output_file, executor, workers, force)
        return
    if executor != "local":
        raise UsageError("--executor needs a folder or pattern as --input")
    if workers is not None and input_file is None:
        raise UsageError("--workers needs --input")
    if input_file is not None:
        from edge.runtime.batch.single_file import bulk_threads, check_output

        if output_file is not None:
            check_output(input_file, output_file, force=force)
        threads = threads or bulk_threads(artifact, workers)
    with load(artifact, threads=threads, guardrails=rails, trust_code=trust_code) as model:
        if text is not None and stream:
            with model.stream(text, fields=values, **call) as pieces:
                for piece in pieces:
                    click.echo(piece, nl=False)
                    sys.stdout.flush()
            click.echo()
        elif text is not None:
            click.echo(format_generation(model.generate(text, fields=values, **call), as_json))
        elif input_file is not None:
            _run_file(model, job, input_file, output_file, workers, force)
        else:
            _filter(model, values, as_json, call)


def parse_fields(fields: tuple[str, ...]) -> dict[str, str]:
    """{"task": "linux"} from ("task=linux",).

    Raises:
        UsageError: A field without a name or a "=".
    """
    from edge.runtime.errors import UsageError

    values = {}
    for field in fields:
        name, equals, value = field.partition("=")
        if not name or not equals:
            raise UsageError(f"--field must be name=value, not {field!r}")
        values[name] = value
    return values


def _filter(model: Model, fields: dict[str, str], as_json: bool, call: dict[str, Any]) -> None:
    """Answer each line at once: the writer of the pipe may wait for the answer."""
    announce("and answering each line")
    from edge.runtime.batch.job import format_generation
    from edge.runtime.errors import DataError

    for number, raw in input_lines():
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise DataError("not UTF-8", path="standard input", line=number) from None
        blank = not line.strip()
        click.echo(
            "" if blank else format_generation(model.generate(line, fields=fields, **call), as_json)
        )
        sys.stdout.flush()


def _run_file(
    model: Model,
    job: BatchJob,
    input_file: Path,
    output_file: Path | None,
    workers: int | None,
    force: bool,
) -> None:
    from edge.runtime.batch.single_file import iter_answers, run_file

    if output_file is None:
        for lines in iter_answers(model, input_file, job, workers=workers):
            for line in lines:
                click.echo(line)
        return
    with _row_progress() as progress:
        count = run_file(
            model, input_file, output_file, job, workers=workers, force=force, progress=progress
        )
    click.echo(f"{count} answers written to {output_file}", err=True)


@contextlib.contextmanager
def _row_progress() -> Iterator[Callable[[int, int], None]]:
    """A callback for (answered rows, all rows): a bar on a terminal, a line if a run continues."""
    from edge.cli.display.console import progress_bar

    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress_bar()) if sys.stderr.isatty() else None
        task = bar.add_task("rows", total=None) if bar else None
        started = False

        def show(done: int, total: int) -> None:
            nonlocal started
            if done and not started:
                click.echo(f"continuing after {done:,} of {total:,} rows", err=True)
            started = True
            if bar is not None and task is not None:
                bar.update(task, completed=done, total=total)

        yield show
