"""Answers to one shard, computed in a worker process that has loaded the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edge.runtime.batch.job import (
    BatchJob,
    InputRow,
    format_row,
    generation_to_dict,
    iter_batches,
    prompt_fields,
    refuse_replaced,
)
from edge.runtime.batch.pool import ShardFailed
from edge.runtime.batch.shards import OutputFolder, Shard, ShardFinished
from edge.runtime.errors import DataError, EdgeError, one_line
from edge.runtime.platform.atomic import new_file
from edge.runtime.rows import BadRow, Columns, Row, iter_rows_with_errors, to_json
from edge.runtime.rows.parquet import open_parquet

if TYPE_CHECKING:
    from edge.runtime.generation import Generation
    from edge.runtime.model import Model

Report = Callable[[int], None]  # called with the number of rows processed since the last call


def try_shard(
    model: Model, job: BatchJob, shard: Shard, output: OutputFolder, report: Report
) -> ShardFinished | ShardFailed:
    """Answer a shard; whatever goes wrong with it, the worker can take the next.

    Raises:
        MemoryError: Another process may have more memory.
    """
    try:
        return answer_shard(model, job, shard, output, report)
    except EdgeError as error:
        return ShardFailed(shard.name, error)
    except MemoryError:
        raise
    except Exception as error:
        return ShardFailed(shard.name, EdgeError(f"{shard.source}: {_message(error)}"))


def answer_shard(
    model: Model, job: BatchJob, shard: Shard, output: OutputFolder, report: Report
) -> ShardFinished:
    """Answer every row of a shard. Rows without an answer go to a separate file with their error.

    Raises:
        DataError: The file as a whole can't be read.
        MissingExtraError: It is a Parquet file and pyarrow is not installed.
    """
    before = shard.source.stat()
    answer = _answer_parquet if shard.source.suffix == ".parquet" else _answer_jsonl
    with contextlib.ExitStack() as stack:
        failures = _FailureWriter(output.failures_path(shard.name), stack)
        rows = answer(model, job, shard, output.answers_path(shard.name), failures, report)
    if not failures.count:
        failures.path.unlink(missing_ok=True)  # from an earlier run
    record = ShardFinished(shard.name, rows, failures.count, before.st_size, before.st_mtime_ns)
    output.save_record(record)
    return record


class _FailureWriter:
    """Writes the rows of one shard that have no answer. Creates the file at the first of them."""

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self.path = path
        self.count = 0
        self._stack = stack
        self._handle: IO[str] | None = None

    def add(self, row: Mapping[str, Any], error: str) -> None:
        if self._handle is None:
            staging = self._stack.enter_context(new_file(self.path))
            self._handle = self._stack.enter_context(staging.open("w", encoding="utf-8"))
        self._handle.write(to_json({**row, "error": error}) + "\n")
        self.count += 1


def _answer_jsonl(
    model: Model, job: BatchJob, shard: Shard, path: Path, failures: _FailureWriter, report: Report
) -> int:
    count = 0
    rows = iter_rows_with_errors(shard.source, Columns(input=job.input_column))
    with new_file(path) as staging, staging.open("w", encoding="utf-8") as handle:
        for batch in iter_batches(rows):
            good = [row for row in batch if isinstance(row, Row)]
            for bad in batch:
                if isinstance(bad, BadRow):
                    failures.add(bad.values, str(bad.error))
            for row in good:
                refuse_replaced(row.fields, job.added_columns, shard.source, row.line)
            inputs = [InputRow(row.input, row.fields) for row in good]
            answers = _generate_with_errors(model, inputs, job)
            for row, source, answer in zip(good, inputs, answers, strict=True):
                if isinstance(answer, str):
                    failures.add(row.fields, f"{shard.source}:{row.line}: {answer}")
                else:
                    handle.write(format_row(source, answer, job) + "\n")
            count += len(batch)
            report(len(batch))
    return count


def _generate_with_errors(
    model: Model, rows: Sequence[InputRow], job: BatchJob
) -> list[Generation | str]:
    """An answer or an error message per row; if the engine fails, each row is tried alone."""
    if not rows:
        return []
    texts = [row.text for row in rows]
    fields = [prompt_fields(row, job) for row in rows]
    try:
        answers = model.generate_each(texts, fields=fields, **job.generate_kwargs)
        return [_message(a) if isinstance(a, EdgeError) else a for a in answers]
    except MemoryError:
        raise
    except Exception as error:  # raised by the engine or the tokenizer
        if len(rows) == 1:
            return [_message(error)]
    return [result for row in rows for result in _generate_with_errors(model, [row], job)]


def _message(error: Exception) -> str:
    if isinstance(error, EdgeError):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {one_line(error)}"


def _answer_parquet(
    model: Model, job: BatchJob, shard: Shard, path: Path, failures: _FailureWriter, report: Report
) -> int:
    """Keep the columns and their types; add the answers, and with details "generation" as JSON."""
    count = 0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_parquet(shard.source))
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = file.schema.names
        if job.input_column not in names:
            raise DataError(
                f"no column {job.input_column!r}. Choose one with --input-column:"
                f" {', '.join(map(repr, names))}",
                path=shard.source,
            )
        refuse_replaced(names, job.added_columns, shard.source)
        added = [pa.field(name, pa.string()) for name in job.added_columns]
        target = pa.schema([*file.schema, *added], metadata=file.features)
        writer = stack.enter_context(pq.ParquetWriter(stack.enter_context(new_file(path)), target))
        for table, rows in file.tables():
            values: list[list[str | None]] = [[None] * len(rows) for _ in added]
            for number, result in _answer_rows(model, job, rows, shard, count, report):
                if isinstance(result, str):
                    failures.add(rows[number], result)
                else:
                    values[0][number] = result.text
                    if job.details:
                        values[1][number] = to_json(generation_to_dict(result))
            columns = [*table.columns, *(pa.array(column, pa.string()) for column in values)]
            answered = pa.array([text is not None for text in values[0]])
            writer.write_batch(pa.record_batch(columns, schema=target).filter(answered))
            count += len(rows)
    return count


def _answer_rows(
    model: Model,
    job: BatchJob,
    rows: Sequence[Mapping[str, Any]],
    shard: Shard,
    rows_before: int,
    report: Report,
) -> Iterator[tuple[int, Generation | str]]:
    """Yield (index, answer or error) for each row of a table."""
    for indices in iter_batches(range(len(rows))):
        usable = []
        for index in indices:
            text = rows[index][job.input_column]
            if isinstance(text, str) and text.strip():
                usable.append(index)
            else:
                reason = "is empty"
                if not isinstance(text, str):
                    reason = f"must be text, not {type(text).__name__}"
                where = f"{shard.source}: row {rows_before + index + 1}"
                yield index, f"{where}: column {job.input_column!r} {reason}"
        inputs = [InputRow(rows[i][job.input_column], rows[i]) for i in usable]
        answers = _generate_with_errors(model, inputs, job)
        for index, result in zip(usable, answers, strict=True):
            if isinstance(result, str):
                result = f"{shard.source}: row {rows_before + index + 1}: {result}"
            yield index, result
        report(len(indices))
