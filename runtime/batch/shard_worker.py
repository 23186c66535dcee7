"""One shard from its first row to its last, by a worker that has the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edge.runtime.batch.job import BatchJob, Source, as_dict, batches, line, row_fields, to_json
from edge.runtime.batch.shards import Done, OutputFolder, Shard
from edge.runtime.errors import DataError, EdgeError, one_line
from edge.runtime.platform.atomic import new_file
from edge.runtime.registry import missing_extra
from edge.runtime.rows import BadRow, Columns, Row, iter_rows_with_errors

if TYPE_CHECKING:
    from edge.runtime.generation import Generation
    from edge.runtime.model import Model

_PARQUET_ROWS = 512  # of a shard in memory at once

Report = Callable[[int], None]  # how many more rows are dealt with


def answer_shard(
    model: Model, job: BatchJob, shard: Shard, output: OutputFolder, report: Report
) -> Done:
    """Answer every row of a shard; rows that can't be answered go apart, with their error.

    Raises:
        DataError: the file as a whole can't be used.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    before = shard.source.stat()
    answer = _answer_parquet if shard.source.suffix == ".parquet" else _answer_lines
    with contextlib.ExitStack() as stack:
        failures = _Failures(output.failures(shard.name), stack)
        rows = answer(model, job, shard, output.answers(shard.name), failures, report)
    if not failures.count:
        failures.path.unlink(missing_ok=True)  # of an earlier run
    done = Done(shard.name, rows, failures.count, before.st_size, before.st_mtime_ns)
    output.finish(done)
    return done


class _Failures:
    """The rows of one shard that have no answer; the file appears when the stack ends well."""

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


def _answer_lines(
    model: Model, job: BatchJob, shard: Shard, path: Path, failures: _Failures, report: Report
) -> int:
    count = 0
    rows = iter_rows_with_errors(shard.source, Columns(input=job.input_column))
    with new_file(path) as staging, staging.open("w", encoding="utf-8") as handle:
        for batch in batches(rows):
            good = [row for row in batch if isinstance(row, Row)]
            for bad in batch:
                if isinstance(bad, BadRow):
                    failures.add(bad.values, str(bad.error))
            sources = [Source(row.input, row.fields) for row in good]
            for row, source, answer in zip(
                good, sources, _generate_apart(model, sources, job), strict=True
            ):
                if isinstance(answer, str):
                    failures.add(row.fields, f"{shard.source}:{row.line}: {answer}")
                else:
                    handle.write(line(source, answer, job.details) + "\n")
            count += len(batch)
            report(len(batch))
    return count


def _generate_apart(
    model: Model, sources: Sequence[Source], job: BatchJob
) -> list[Generation | str]:
    """An answer or an error for each input: one that fails does not take its batch along."""
    if not sources:
        return []
    texts = [source.text for source in sources]
    fields = [row_fields(source, job) for source in sources]
    try:
        answers = model.generate_each(texts, fields=fields, **job.call)
        return [_sentence(a) if isinstance(a, EdgeError) else a for a in answers]
    except MemoryError:
        raise
    except Exception as error:  # the engine's or the tokenizer's own
        if len(sources) == 1:
            return [_sentence(error)]
    return [result for source in sources for result in _generate_apart(model, [source], job)]


def _sentence(error: Exception) -> str:
    if isinstance(error, EdgeError):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {one_line(error)}"


def _answer_parquet(
    model: Model, job: BatchJob, shard: Shard, path: Path, failures: _Failures, report: Report
) -> int:
    """Columns keep their types; the answer is a column "output", details JSON in "generation"."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise missing_extra(f"{shard.source}", "pyarrow", "parquet") from error

    added = ["output", "generation"] if job.details else ["output"]
    count = 0
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(pq.ParquetFile(shard.source))
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"no parquet file ({one_line(error, 200)})", path=shard.source
            ) from error
        schema = file.schema_arrow
        if job.input_column not in schema.names:
            raise DataError(
                f"no column {job.input_column!r}; it has: {', '.join(map(repr, schema.names))}"
                " (choose with --input-column)",
                path=shard.source,
            )
        kept = [name for name in schema.names if name not in added]
        target = pa.schema([*map(schema.field, kept), *(pa.field(a, pa.string()) for a in added)])
        writer = stack.enter_context(pq.ParquetWriter(stack.enter_context(new_file(path)), target))
        for table in _tables(file, shard.source):
            rows = table.to_pylist()
            texts: list[list[str | None]] = [[None] * len(rows) for _ in added]
            for number, result in _answer_rows(model, job, rows, shard, count, report):
                if isinstance(result, str):
                    failures.add(rows[number], result)
                else:
                    texts[0][number] = result.text
                    if job.details:
                        texts[1][number] = to_json(as_dict(result))
            columns = [*(table.column(name) for name in kept)]
            columns += [pa.array(values, pa.string()) for values in texts]
            answered = pa.array([text is not None for text in texts[0]])
            writer.write_batch(pa.record_batch(columns, schema=target).filter(answered))
            count += len(rows)
    return count


def _tables(file: Any, path: Path) -> Iterator[Any]:
    import pyarrow as pa

    try:
        yield from file.iter_batches(batch_size=_PARQUET_ROWS)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"can't be read to its end ({one_line(error, 200)})", path=path) from error


def _answer_rows(
    model: Model,
    job: BatchJob,
    rows: list[dict[str, Any]],
    shard: Shard,
    before: int,
    report: Report,
) -> Iterator[tuple[int, Generation | str]]:
    """(row number, answer or error) for rows that came from a table."""
    for numbers in batches(range(len(rows))):
        usable = []
        for number in numbers:
            text = rows[number][job.input_column]
            if isinstance(text, str) and text.strip():
                usable.append(number)
            else:
                kind = "empty" if isinstance(text, str) else f"no text: {type(text).__name__}"
                where = f"{shard.source}: row {before + number + 1}"
                yield number, f"{where}: column {job.input_column!r} is {kind}"
        sources = [Source(rows[n][job.input_column], rows[n]) for n in usable]
        for number, result in zip(usable, _generate_apart(model, sources, job), strict=True):
            if isinstance(result, str):
                result = f"{shard.source}: row {before + number + 1}: {result}"
            yield number, result
        report(len(numbers))
