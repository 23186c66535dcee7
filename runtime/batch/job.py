"""Definition of a batch run, and the steps of every row: read, generate, format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edge.runtime.artifact import sha256_of
from edge.runtime.artifact.manifest import MANIFEST_NAME
from edge.runtime.batch.callables import callable_fingerprint
from edge.runtime.errors import DataError, UsageError
from edge.runtime.guardrails import Guardrails
from edge.runtime.rows import Columns, iter_lines, iter_rows, kind_of, to_json
from edge.runtime.text.output_checks import JsonOutput, RegexOutput

if TYPE_CHECKING:
    from edge.runtime.generation import Generation
    from edge.runtime.model import Model

T = TypeVar("T")
BATCH_SIZE = 16
_DETAILS_COLUMN = "generation"


@dataclass(frozen=True)
class BatchJob:
    """Settings of a batch run. Picklable, because worker processes get a copy.

    Args:
        artifact: Artifact folder.
        input_column: Column with the input text, for rows of JSON or Parquet.
        fields: Values for the prompt's fields. They override columns of the same name.
        details: Add scores, token ids and timings to each answer.
        generate_kwargs: Keyword arguments of `Model.generate`.
        threads: Threads that each engine computes with. None: the artifact's tuned value.
        guardrails: Limits and output checks. Functions in them must be importable by name.
        trust_code: See `edge.runtime.load`.
        output_column: Column for the answers, for rows of JSON or Parquet.

    Raises:
        UsageError: The output column has the name of the column of details.
    """

    artifact: Path
    input_column: str = "input"
    fields: Mapping[str, str] = field(default_factory=dict)
    details: bool = False
    generate_kwargs: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    guardrails: Guardrails = field(default_factory=Guardrails)
    trust_code: bool = False
    output_column: str = "output"

    def __post_init__(self) -> None:
        if self.details and self.output_column == _DETAILS_COLUMN:
            raise UsageError(
                f"--output-column {_DETAILS_COLUMN}: --jsonl uses this column; choose another one"
            )

    @property
    def added_columns(self) -> tuple[str, ...]:
        """Columns that each row gains: the one of the answers, and with details theirs."""
        return (self.output_column, _DETAILS_COLUMN) if self.details else (self.output_column,)

    def load(self) -> Model:
        """Load the artifact and check the generation options against it.

        Raises:
            ArtifactError: The artifact can't be loaded.
            UsageError: The artifact does not support one of the options.
        """
        from edge.runtime.model import load

        model = load(
            self.artifact,
            threads=self.threads,
            guardrails=self.guardrails,
            trust_code=self.trust_code,
        )
        model.generate([], **self.generate_kwargs)
        return model

    def fingerprint(self) -> dict[str, Any]:
        """Everything the answers depend on, except the rows.

        Two runs with equal fingerprints give the same answer to the same row.
        """
        return {
            # The manifest holds the SHA-256 of every other file.
            "artifact": sha256_of(self.artifact / MANIFEST_NAME),
            "options": {
                "input_column": self.input_column,
                "output_column": self.output_column,
                "fields": dict(self.fields),
                "details": self.details,
                **_guardrails_to_json(self.guardrails),
                **json.loads(json.dumps(dict(self.generate_kwargs))),
            },
        }


def _guardrails_to_json(guardrails: Guardrails) -> dict[str, Any]:
    values = {one.name: getattr(guardrails, one.name) for one in dataclasses.fields(guardrails)}
    for name in ("output", "fallback"):
        value = values[name]
        if isinstance(value, RegexOutput):
            values[name] = {"pattern": value.pattern}
        elif isinstance(value, JsonOutput):
            values[name] = {"schema": value.schema}
        elif callable(value):
            values[name] = callable_fingerprint(value)
    return values


@dataclass(frozen=True)
class InputRow:
    """One input text, and the columns of its row if the file has columns."""

    text: str
    columns: Mapping[str, object] | None = None


def refuse_replaced(
    names: Collection[str], added: Sequence[str], path: Path, line: int | None = None
) -> None:
    """Check that no column of a row would be replaced by what is added to it.

    Args:
        names: The columns of the row.
        added: `BatchJob.added_columns`.
        path: The file, for the error.
        line: The line of the row, or None for all rows.

    Raises:
        DataError: A column would be.
    """
    for name in added:
        if name in names:
            advice = (
                "with --jsonl, details go there; rename it"
                if name == _DETAILS_COLUMN
                else "choose another one for the answers with --output-column"
            )
            raise DataError(f"there is already a column {name!r}; {advice}", path=path, line=line)


def iter_inputs(
    path: Path, input_column: str, added_columns: Sequence[str] = ()
) -> Iterator[InputRow]:
    """Read the inputs of one file: rows of a known kind of data, else lines of text.

    A blank line is an input without text, so that answers stay on the lines of their inputs.

    Args:
        path: The file.
        input_column: The column with the input text, of rows.
        added_columns: Columns that no row may have yet.

    Raises:
        DataError: The file is missing or has no rows, or a row is malformed (file:line).
    """
    count = 0
    if kind_of(path) is not None:
        for row in iter_rows(path, Columns(input=input_column), need_target=False):
            count += 1
            refuse_replaced(row.fields, added_columns, path, row.line)
            yield InputRow(row.input, row.fields)
    else:
        for line in iter_lines(path):
            count += 1
            yield InputRow(line)
    if not count:
        raise DataError("the file has no rows", path=path)


def iter_batches(items: Iterable[T], size: int = BATCH_SIZE) -> Iterator[list[T]]:
    """Split `items` into lists of `size`; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def prompt_fields(row: InputRow, job: BatchJob) -> dict[str, object]:
    """Values for the prompt's fields: the row's columns, overridden by `job.fields`."""
    return {**(row.columns or {}), **job.fields}


def generation_to_dict(answer: Generation) -> dict[str, Any]:
    """The answer as plain values for JSON, with `total_ms` among the timings."""
    values = dataclasses.asdict(answer)
    values["timings"]["total_ms"] = answer.timings.total_ms
    return values


def format_generation(answer: Generation, details: bool) -> str:
    """The answer as one line: its text, or with `details` a JSON object."""
    if details:
        return to_json(generation_to_dict(answer))
    # One input must stay one line of output.
    return answer.text.replace("\r", " ").replace("\n", " ")


def format_row(row: InputRow, answer: Generation | None, job: BatchJob) -> str:
    """One line of output: a row keeps its columns and gains the answer, a text stays a text."""
    if answer is None:
        return ""
    if row.columns is None:
        return format_generation(answer, job.details)
    extra = {_DETAILS_COLUMN: generation_to_dict(answer)} if job.details else {}
    return to_json({**row.columns, job.output_column: answer.text, **extra})
