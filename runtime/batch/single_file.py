"""Batch run over a single file, resumable after a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.artifact import Artifact
from edge.runtime.batch.job import (
    BATCH_SIZE,
    BatchJob,
    InputRow,
    format_row,
    iter_batches,
    iter_inputs,
)
from edge.runtime.batch.journal import journal_path, open_journal
from edge.runtime.batch.parts import PART_SIZE, answer_parts
from edge.runtime.engines import ENGINES
from edge.runtime.errors import UsageError
from edge.runtime.platform.atomic import new_file
from edge.runtime.platform.destination import exists_already
from edge.runtime.platform.os_errors import readable_os_errors
from edge.runtime.rows import data_sha256

if TYPE_CHECKING:
    from edge.runtime.model import Model

# Suffixes by which edge and others would misread the answers.
_OTHER_FORMATS = (
    *(".arrow", ".csv", ".feather", ".json", ".parquet", ".tsv", ".xls", ".xlsx"),
    *(".bz2", ".gz", ".xz", ".zip", ".zst"),
)
# Called with (rows answered, total rows). The first call reports how many an earlier run answered.
Progress = Callable[[int, int], None]


def bulk_threads(artifact: Path, workers: int | None) -> int | None:
    """Threads to load an artifact with for many rows, if none are asked for.

    One thread for each of several batches answers more rows than all threads for one batch. None
    stands for the artifact's tuned value: it has one batch at a time, or `workers` is given.
    """
    if workers is not None:
        return None
    engine = ENGINES.load(Artifact.open(artifact).manifest.format)
    return 1 if engine.concurrent else None


def iter_answers(
    model: Model,
    path: Path,
    job: BatchJob,
    skip: int = 0,
    *,
    workers: int | None = None,
    answered: Callable[[int], None] = lambda rows: None,
) -> Iterator[list[str]]:
    """Yield the lines of output part by part, starting after the first `skip` rows.

    Args:
        model: The loaded artifact.
        path: Rows or lines of text. Parts of a pipe are small, since its rows may come slowly.
        job: Artifact and options.
        skip: Rows to leave out.
        workers: See `run_file`.
        answered: Called with the number of rows after each batch of a part.

    Raises:
        DataError: A malformed row (file:line).
        UsageError: More than one worker, and an engine that has one at a time.
        EdgeError: A row can't be answered.
    """
    together = _choose_workers(model, workers)
    whole = not _is_pipe(path)
    inputs = islice(_inputs(path, job), skip, None)
    parts = iter_batches(inputs, PART_SIZE if whole else BATCH_SIZE)
    for rows, answers in answer_parts(
        model, job, parts, workers=together, read_ahead=whole, answered=answered
    ):
        yield [format_row(row, a, job) for row, a in zip(rows, answers, strict=True)]


def _choose_workers(model: Model, workers: int | None) -> int:
    """The number of batches at the same time; see `run_file`."""
    if workers is None:
        return model.engine.parallel_calls
    if workers > 1 and not model.engine.concurrent:
        raise UsageError(
            f"--workers {workers}: the {model.engine.format} engine runs one batch at a time. Split"
            " the file, and give the folder as --input"
        )
    return workers


def _is_pipe(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _inputs(path: Path, job: BatchJob) -> Iterator[InputRow]:
    return iter_inputs(path, job.input_column, job.added_columns)


def run_file(
    model: Model,
    path: Path,
    output: Path,
    job: BatchJob,
    *,
    workers: int | None = None,
    force: bool = False,
    progress: Progress = lambda done, total: None,
) -> int:
    """Answer every row of `path` into `output`, which appears when it is complete.

    Answers are saved in a journal beside the output. After a crash the same call continues after
    the last of them, and the output is the same as that of an uninterrupted run.

    Args:
        model: The loaded artifact.
        path: Rows of any kind (see `edge.runtime.rows.kinds`) or lines of text. A pipe can be read
            only once, so it is not resumable.
        output: File of the answers.
        job: Artifact and options.
        workers: Batches that are answered at the same time, each with the model's threads. None:
            the cores ÷ threads, or 1 where the engine runs one batch at a time.
        force: Replace an existing output, and discard what an unfinished run left.
        progress: Called with (rows answered, total rows).

    Returns:
        The number of rows in the output.

    Raises:
        DataError: A malformed row. All rows are checked before the first is answered.
        UsageError: More than one worker, and an engine that has one at a time.
        OutputExistsError: The output exists and no unfinished run is to replace it, or another
            run's answers exist, and `force` is off.
    """
    check_output(path, output, force=force)
    model.generate([], **job.generate_kwargs)  # rejects bad options before anything is written
    workers = _choose_workers(model, workers)
    if _is_pipe(path):
        if not force and _is_taken(output):  # whatever a journal beside it is of
            raise exists_already(output)
        return _run_pipe(model, path, output, job, workers)
    total = sum(1 for _ in _inputs(path, job))
    fingerprint = {**job.fingerprint(), "input": data_sha256(path)}
    with open_journal(output, fingerprint, force=force) as journal:
        if not force and not journal.lines and _is_taken(output):
            raise exists_already(output)
        # Resume at the start of a part, because its batches have random generators of their own.
        done = journal.lines if journal.lines == total else journal.lines // PART_SIZE * PART_SIZE
        journal.truncate(done)
        progress(done, total)

        def answered(rows: int) -> None:
            nonlocal done
            done += rows
            progress(done, total)

        for lines in iter_answers(model, path, job, skip=done, workers=workers, answered=answered):
            journal.append(lines)
        journal.publish()
    return total


def _run_pipe(model: Model, path: Path, output: Path, job: BatchJob, workers: int | None) -> int:
    count = 0
    with new_file(output) as staging, staging.open("w", encoding="utf-8") as handle:
        for lines in iter_answers(model, path, job, workers=workers):
            handle.writelines(line + "\n" for line in lines)
            count += len(lines)
    return count


def check_output(path: Path, output: Path, *, force: bool = False) -> None:
    """Check before the model is loaded that the answers to `path` may be written to `output`.

    Raises:
        UsageError: The output is a folder, no regular file or the input, or its suffix is that of
            another format.
        OutputExistsError: It exists, `force` is off, and there is no unfinished run beside it.
    """
    with readable_os_errors(output):
        _check_paths(path, output)
        if not force and _is_taken(output) and not journal_path(output).exists():
            raise exists_already(output)


def _is_taken(output: Path) -> bool:
    """Whether there is a file that is not empty, as that of mktemp is."""
    return output.exists() and output.stat().st_size > 0


def _check_paths(path: Path, output: Path) -> None:
    if output.is_dir():
        raise UsageError(f"{output} is a folder. --output must name a file, because --input does")
    if output.exists() and not output.is_file():
        raise UsageError(
            f"{output} is not a regular file. Omit --output to write to standard output"
        )
    if output.exists() and path.exists() and output.samefile(path):
        raise UsageError(f"{output} is also --input. Choose another --output")
    if output.suffix.lower() in _OTHER_FORMATS:
        raise UsageError(
            f"{output}: the answers are lines of JSON or text, not {output.suffix}. Name the file"
            " .jsonl, or .txt for answers to lines of text"
        )
