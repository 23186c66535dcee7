"""The one family of errors that every room raises for what a person can mend.

The command line prints such an error as one line on stderr and exits with its `exit_code`:
2 for usage and bad input, 1 for a failure, 3 for a missed target. Anything that is not an
`EdgeError` is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path


class EdgeError(Exception):
    """What is wrong, where, and what to do next, in one sentence or two."""

    exit_code = 1


class UsageError(EdgeError):
    """An option or argument that can't be used as given."""

    exit_code = 2


class DataError(EdgeError):
    """A row or a data file that can't be used.

    `path` and `line` (counted from 1) say where; they become part of the message.
    """

    exit_code = 2

    def __init__(
        self, message: str, *, path: str | Path | None = None, line: int | None = None
    ) -> None:
        where = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(where + message)
        self.path = None if path is None else Path(path)
        self.line = line


class PreflightError(EdgeError):
    """A training run that a check before it fails; the message names all that did."""

    exit_code = 2


class ModelError(EdgeError):
    """A model folder that is not a usable T5-family model."""

    exit_code = 2


class ArtifactError(EdgeError):
    """An artifact folder that is missing, truncated, altered or of another schema."""

    exit_code = 2


class OutputExistsError(EdgeError):
    """The destination is there already and replacing it was not asked for."""

    exit_code = 2


class UnsupportedError(EdgeError):
    """Something that this engine or format can't do; the message names those that can."""

    exit_code = 2


class InputTooLongError(EdgeError):
    """An input with more tokens than the artifact's limit."""

    exit_code = 2


class OutputError(EdgeError):
    """An answer that does not pass its check, decoded a second time too.

    `raw_text` is the model's first answer. The message may quote a piece of it: log neither where
    content must not be logged.
    """

    def __init__(self, message: str, *, raw_text: str) -> None:
        super().__init__(message)
        self.raw_text = raw_text


class MissingExtraError(EdgeError):
    """A library that is not installed; the message says which extra brings it."""


class ParityError(EdgeError):
    """An artifact whose answers differ from its source model's by more than the limits."""


class TargetMissedError(EdgeError):
    """Nothing that was measured meets the latency target."""

    exit_code = 3


def first_line(error: BaseException | str, max_chars: int = 300) -> str:
    """The first line of an error's message, for a message of one line.

    Args:
        error: An exception or its text.
        max_chars: Where a long line is cut.

    Returns:
        The line without a final full stop, or the exception's type if its message is empty.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:max_chars].rstrip(".")


def one_line(error: BaseException | str, max_chars: int = 300) -> str:
    """An error's message with line breaks and runs of spaces as one space, cut at `max_chars`."""
    return " ".join(str(error).split())[:max_chars]
