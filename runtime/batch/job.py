"""What every row of a bulk run gets: read, answered in batches, written as a line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edge.runtime.artifact import sha256_of
from edge.runtime.artifact.manifest import MANIFEST_NAME
from edge.runtime.errors import DataError
from edge.runtime.guardrails import Guardrails
from edge.runtime.rows import Columns, iter_lines, iter_rows
from edge.runtime.text.output_checks import JsonOutput, RegexOutput

if TYPE_CHECKING:
    from edge.runtime.generation import Generation
    from edge.runtime.model import Model

T = TypeVar("T")
BATCH = 16  # rows that run at once
ROW_SUFFIXES = (".jsonl", ".json")  # of files whose lines are JSON; others are lines of text


@dataclass(frozen=True)
class BatchJob:
    """What is done with every row; plain values, as it travels to worker processes.

    `call` holds keywords of `Model.generate`; `details` adds scores, token ids and timings.
    Functions in `guardrails` must be importable ones, so that they can travel.
    """

    artifact: Path
    input_column: str = "input"
    fields: Mapping[str, str] = field(default_factory=dict)
    details: bool = False
    call: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    guardrails: Guardrails = field(default_factory=Guardrails)

    def load(self) -> Model:
        """The artifact, ready for this job.

        Raises:
            ArtifactError: it can't be loaded.
            UsageError: an option that it can't honor.
        """
        from edge.runtime.model import load

        model = load(self.artifact, threads=self.threads, guardrails=self.guardrails)
        model.generate([], **self.call)
        return model

    def identity(self) -> dict[str, Any]:
        """What the answers depend on, but for the rows: two runs alike here give the same ones."""
        return {
            # The manifest holds the sha256 of every other file.
            "artifact": sha256_of(self.artifact / MANIFEST_NAME),
            "options": {
                "input_column": self.input_column,
                "fields": dict(self.fields),
                "json": self.details,
                **_settings(self.guardrails),
                **json.loads(json.dumps(dict(self.call))),
            },
        }


def _settings(guardrails: Guardrails) -> dict[str, Any]:
    """The guardrails as JSON."""
    values = {one.name: getattr(guardrails, one.name) for one in dataclasses.fields(guardrails)}
    for name in ("output", "fallback"):
        value = values[name]
        if isinstance(value, RegexOutput):
            values[name] = {"pattern": value.pattern}
        elif isinstance(value, JsonOutput):
            values[name] = {"schema": value.schema}
        elif callable(value):
            values[name] = f"{value.__module__}.{getattr(value, '__qualname__', '?')}"
    return values


@dataclass(frozen=True)
class Source:
    """One input: its text, and the row it came in where that was JSON."""

    text: str
    row: Mapping[str, object] | None = None


def iter_sources(path: Path, input_column: str) -> Iterator[Source]:
    """The inputs of one file: rows of JSON lines, else its lines of text.

    Raises:
        DataError: the file is missing or has no rows, or a row is malformed (file:line).
    """
    count = 0
    if path.suffix in ROW_SUFFIXES:
        for row in iter_rows(path, Columns(input=input_column), need_target=False):
            count += 1
            yield Source(row.input, row.fields)
    else:
        for line in iter_lines(path):
            count += 1
            yield Source(line)
    if not count:
        raise DataError("the file has no rows", path=path)


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """The items in lists of `size`; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def generate(model: Model, sources: Sequence[Source], job: BatchJob) -> list[Generation]:
    """The answers to one batch."""
    fields = [row_fields(source, job) for source in sources]
    return model.generate([source.text for source in sources], fields=fields, **job.call)


def row_fields(source: Source, job: BatchJob) -> dict[str, object]:
    """Values for the prompt's fields; `job.fields` come before a row's own columns."""
    return {**(source.row or {}), **job.fields}


def to_json(values: Mapping[str, Any]) -> str:
    """JSON as readable as UTF-8 allows; half a surrogate pair, which it can't hold, is escaped.

    What JSON has no form for (dates or bytes of a parquet row) is written as text.
    """
    text = json.dumps(values, ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(values, default=str)
    return text


def as_dict(answer: Generation) -> dict[str, Any]:
    """The answer for JSON, total_ms included."""
    values = dataclasses.asdict(answer)
    values["timings"]["total_ms"] = answer.timings.total_ms
    return values


def text_line(answer: Generation, details: bool) -> str:
    """The answer as one line: its text, or JSON with the details."""
    if details:
        return to_json(as_dict(answer))
    # One input is one line of output, whatever a model comes up with.
    return answer.text.replace("\r", " ").replace("\n", " ")


def line(source: Source, answer: Generation, details: bool) -> str:
    """One line of output: a row keeps its columns and gains "output", a text becomes a text."""
    if source.row is None:
        return text_line(answer, details)
    extra = {"generation": as_dict(answer)} if details else {}
    return to_json({**source.row, "output": answer.text, **extra})
