"""Errors the user can fix, shared by all subpackages.

The command line prints such an error as one line on stderr and exits with its `exit_code`: 2 for
usage and bad input, 1 for a failure, 3 for a missed target. Any other exception is a bug and keeps
its traceback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path


class EdgeError(Exception):
    """Base class of all errors. The message says what is wrong, where, and what to do."""

    exit_code = 1


class UsageError(EdgeError):
    """An invalid option or argument."""

    exit_code = 2


class DataError(EdgeError):
    """An unusable row or data file.

    `path` and `line` (from 1) say where; they are part of the message.
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
    """A training run that fails its preflight checks; the message lists every failed check."""

    exit_code = 2


class ModelError(EdgeError):
    """An unusable model: missing, damaged, or not of the T5 family."""

    exit_code = 2


class ArtifactError(EdgeError):
    """An unusable artifact: missing, truncated, altered or of a newer schema."""

    exit_code = 2


class OutputExistsError(EdgeError):
    """An output that already exists and may not be replaced."""

    exit_code = 2


class UnsupportedError(EdgeError):
    """Something that this engine or format can't do; the message names alternatives."""

    exit_code = 2


class InputTooLongError(EdgeError):
    """An input or output with more tokens than the limit."""

    exit_code = 2


class OutputError(EdgeError):
    """An answer that fails its output check, also when decoded again.

    `raw_text` is the model's first answer. The message may quote part of it: log neither if content
    must not be logged.
    """

    def __init__(self, message: str, *, raw_text: str) -> None:
        super().__init__(message)
        self.raw_text = raw_text


class ConstraintError(EdgeError):
    """An answer that can't go on: no token fits its constraint, or following it takes too long."""


class MissingExtraError(EdgeError):
    """A library that is not installed; the message says which extra installs it.

    `cause_of_call` is Python's error if the message does not say what needs the library.
    """

    cause_of_call: ModuleNotFoundError | None = None


class ParityError(EdgeError):
    """An artifact whose outputs differ from its source model's by more than the tolerance."""


class TargetMissedError(EdgeError):
    """A latency target that nothing measured meets."""

    exit_code = 3


def missing_library(
    error: ModuleNotFoundError, what: str = "this", preferred: str = ""
) -> MissingExtraError | None:
    """The error that names the extra of a missing library; None for a library of no extra.

    Args:
        error: Python's error.
        what: What needs the library, such as "edge compile".
        preferred: The extra that is named if it installs the library, too.
    """
    from edge.runtime.install import extra_for, install_command

    library = (error.name or "").partition(".")[0]
    extra = extra_for(library, preferred)
    if extra is None:
        return None
    return MissingExtraError(
        f"{what} needs {library}, which is not installed: {install_command(extra)}"
    )


def is_panic(error: BaseException) -> bool:
    """Whether an exception is a panic of a Rust library, which is not an `Exception`."""
    return type(error).__name__ == "PanicException"


@contextlib.contextmanager
def converted_errors(convert: Callable[[BaseException], EdgeError]) -> Iterator[None]:
    """The boundary around a call of a library: whatever it raises becomes an EdgeError.

    Panics of Rust libraries are included. An EdgeError passes unchanged, and so does Ctrl-C. A
    library that is not installed becomes a MissingExtraError.

    Args:
        convert: Makes the error out of the library's.

    Raises:
        EdgeError: What `convert` returned.
    """
    try:
        yield
    except EdgeError:
        raise
    except ModuleNotFoundError as error:
        missing = missing_library(error)
        if missing is None:
            raise convert(error) from error
        missing.cause_of_call = error
        raise missing from error
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise convert(error) from error


@contextlib.contextmanager
def library_errors(
    kind: type[EdgeError], where: str | Path, action: str = "can't be loaded"
) -> Iterator[None]:
    """The boundary around a call of a library that reads a file from an untrusted place.

    Whatever the library raises, panics of Rust libraries included, becomes one sentence that names
    the file. An EdgeError passes unchanged.

    Args:
        kind: Class of the error, such as `ModelError`.
        where: The file or folder.
        action: What failed.

    Raises:
        EdgeError: An error of class `kind`.
    """
    with converted_errors(lambda error: kind(f"{where}: {action} ({error_reason(error)})")):
        yield


def error_reason(error: BaseException) -> str:
    """An error's message, with the name of its type where the message alone says little."""
    text = one_line(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    if not text or isinstance(error, LookupError | TypeError | AttributeError):
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text


def first_line(error: BaseException | str, max_chars: int = 300) -> str:
    """The first line of an error's message.

    Args:
        error: An exception or its text.
        max_chars: Longer lines are cut.

    Returns:
        The line without a final period, or the name of the exception's type if it has no message.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:max_chars].rstrip(".")


def one_line(error: BaseException | str, max_chars: int = 300) -> str:
    """An error's message with all white space collapsed to single spaces, at most `max_chars`."""
    return " ".join(str(error).split())[:max_chars]
