"""One file in, one file out, continued where a crash ended it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.artifact import sha256_of
from edge.runtime.batch.job import BATCH, BatchJob, batches, generate, iter_sources, line
from edge.runtime.batch.journal import open_journal
from edge.runtime.errors import UsageError
from edge.runtime.platform.atomic import new_file

if TYPE_CHECKING:
    from edge.runtime.model import Model

# Called with (rows answered, rows in all); the first call says how many were there already.
Progress = Callable[[int, int], None]


def answered_lines(model: Model, path: Path, job: BatchJob, skip: int = 0) -> Iterator[list[str]]:
    """The lines of output in batches, after the first `skip` rows."""
    for batch in batches(islice(iter_sources(path, job.input_column), skip, None)):
        answers = generate(model, batch, job)
        yield [line(s, a, job.details) for s, a in zip(batch, answers, strict=True)]


def run_file(
    model: Model,
    path: Path,
    output: Path,
    job: BatchJob,
    *,
    force: bool = False,
    progress: Progress = lambda done, total: None,
) -> int:
    """Answer every row of `path` into `output`, which appears when it is complete.

    Answers are kept in a journal beside the output as they come; after a crash the same call
    continues after the last of them and leaves what an undisturbed run would have.

    Args:
        path: JSON lines or lines of text; a pipe can be read once only, so it starts over.
        force: forget what an unfinished run with another artifact, input or options left.

    Returns:
        The number of rows in the output.

    Raises:
        DataError: a malformed row; all are checked before the first is answered.
        OutputExistsError: another run's answers wait to be continued, and `force` is off.
    """
    _check_paths(path, output)
    model.generate([], **job.call)  # a bad option is refused before anything is written
    if path.exists() and not path.is_file():
        return _run_pipe(model, path, output, job)
    total = sum(1 for _ in iter_sources(path, job.input_column))
    identity = {**job.identity(), "input": sha256_of(path)}
    with open_journal(output, identity, force=force) as journal:
        # Whole batches only: sampling with a seed then draws the same for every row.
        done = journal.lines if journal.lines == total else journal.lines // BATCH * BATCH
        journal.keep(done)
        progress(done, total)
        for lines in answered_lines(model, path, job, skip=done):
            journal.append(lines)
            progress(journal.lines, total)
        journal.publish()
    return total


def _run_pipe(model: Model, path: Path, output: Path, job: BatchJob) -> int:
    count = 0
    with new_file(output) as staging, staging.open("w", encoding="utf-8") as handle:
        for lines in answered_lines(model, path, job):
            handle.writelines(one + "\n" for one in lines)
            count += len(lines)
    return count


def _check_paths(path: Path, output: Path) -> None:
    if output.is_dir():
        raise UsageError(f"{output} is a folder; --output must name a file, as --input does")
    if output.exists() and not output.is_file():
        raise UsageError(f"{output} is no plain file; leave out --output for standard output")
    if output.exists() and path.exists() and output.samefile(path):
        raise UsageError(f"{output} is --input as well; give another --output")
