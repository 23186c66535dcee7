"""Parts of a file: batches of rows of similar length, several of which are answered at once."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.runtime.batch.job import BatchJob, InputRow, prompt_fields
from edge.runtime.errors import EdgeError
from edge.runtime.inference.batching import batches_by_length

if TYPE_CHECKING:
    from edge.runtime.generation import Generation
    from edge.runtime.model import Model

PART_SIZE = 256  # rows; what a crash may lose
_BATCH_SIZE = 32

Answers = list["Generation | None"]  # in the order of the rows; None for a blank line


@dataclass
class _Running:
    """A part whose batches are being answered."""

    rows: Sequence[InputRow]
    batches: list[list[int]]
    results: Iterator[list[Generation]]

    def finish(self, answered: Callable[[int], None]) -> tuple[Sequence[InputRow], Answers]:
        """Wait for all answers; `answered` gets the number of blank rows and of each batch's."""
        answers: Answers = [None] * len(self.rows)
        if blank := len(self.rows) - sum(map(len, self.batches)):
            answered(blank)
        for batch, found in zip(self.batches, self.results, strict=True):
            for number, answer in zip(batch, found, strict=True):
                answers[number] = answer
            answered(len(batch))
        return self.rows, answers


def answer_parts(
    model: Model,
    job: BatchJob,
    parts: Iterator[list[InputRow]],
    *,
    workers: int = 1,
    read_ahead: bool = True,
    answered: Callable[[int], None] = lambda rows: None,
) -> Iterator[tuple[Sequence[InputRow], Answers]]:
    """Answer parts in order.

    The batches of a part do not depend on `workers`, so that near ties don't either.

    Args:
        model: The loaded artifact; with several workers one whose calls may run at the same time.
        job: Artifact and options.
        parts: Rows that are answered together.
        workers: Batches that are answered at the same time.
        read_ahead: With several workers, begin a part before the one before it is complete.
        answered: Called with the number of rows after each batch.

    Yields:
        The rows of a part, and their answers.

    Raises:
        EdgeError: A row can't be read or answered. The parts before its own have been yielded.
    """

    def answer(rows: Sequence[InputRow]) -> list[Generation]:
        return model.generate(
            [row.text for row in rows],
            fields=[prompt_fields(row, job) for row in rows],
            batch_size=_BATCH_SIZE,
            **job.generate_kwargs,
        )

    with contextlib.ExitStack() as stack:
        pool = None
        if workers > 1:
            pool = ThreadPoolExecutor(workers, "edge-batch")
            # After an error or Ctrl-C, batches that wait are not answered.
            stack.callback(pool.shutdown, cancel_futures=True)
        running: deque[_Running] = deque()
        ahead = 1 if pool is not None and read_ahead else 0
        failure: EdgeError | None = None
        for rows in _until_error(parts):
            if isinstance(rows, EdgeError):
                failure = rows
                break
            batches = _batches(rows)
            taken = [[rows[number] for number in batch] for batch in batches]
            results = map(answer, taken) if pool is None else pool.map(answer, taken)
            running.append(_Running(rows, batches, results))
            if len(running) > ahead:
                yield running.popleft().finish(answered)
        while running:
            yield running.popleft().finish(answered)
        if failure is not None:
            raise failure


def _until_error(parts: Iterator[list[InputRow]]) -> Iterator[list[InputRow] | EdgeError]:
    """The parts; an error while reading is the last value, since earlier parts may be running."""
    try:
        yield from parts
    except EdgeError as error:
        yield error


def _batches(rows: Sequence[InputRow]) -> list[list[int]]:
    """Numbers of the rows of each batch, without blank ones.

    The longest are first: a row over the limit is found at once, and no worker has a long batch
    while the others have none left.
    """
    asked = [number for number, row in enumerate(rows) if row.text.strip()]
    lengths = [len(rows[number].text) for number in asked]
    batches = batches_by_length(lengths, _BATCH_SIZE, longest_first=True)
    return [[asked[place] for place in batch] for batch in batches]
