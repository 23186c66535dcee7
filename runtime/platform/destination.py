"""Checks of an output's place before the work: free or replaceable, writable, no input in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from edge.runtime.errors import EdgeError, OutputExistsError
from edge.runtime.platform.os_errors import readable_os_errors

# Each folder that a command writes has one of these.
_OUTPUT_FILES = (
    "edge.json",
    "config.json",
    "training.json",
    "adapter_config.json",
    "train.jsonl",
    "dev.jsonl",
    "test.jsonl",
)


def check_destination(
    destination: str | Path,
    *,
    force: bool,
    file: bool = False,
    inputs: Iterable[str | Path] = (),
) -> None:
    """Check before the work starts that an output may be written, and that nothing else is lost.

    Args:
        destination: The folder, or with `file` the file, that will be written. An empty folder
            may always be replaced.
        force: Whether an existing output may be replaced. A folder must look like one that edge
            wrote.
        file: Whether the output is a file.
        inputs: Paths that the command reads; what is no path, such as a hub id, does no harm.

    Raises:
        OutputExistsError: The output exists and `force` is off, it is a folder where a file is
            needed or the other way round, it holds an input, or it is a folder of something else.
        EdgeError: It can't be written.
    """
    destination = Path(destination)
    check_free(destination, force=force, file=file)
    if destination.is_dir() and any(destination.iterdir()):
        place = destination.resolve()
        for path in inputs:
            if os.path.exists(path) and Path(path).resolve().is_relative_to(place):
                raise OutputExistsError(
                    f"{destination} can't be replaced: this command reads {path}. Choose another"
                    " --output"
                )
        if not any((destination / name).exists() for name in _OUTPUT_FILES):
            raise OutputExistsError(
                f"{destination} was not written by edge, so --force does not replace it. Choose"
                " another --output, or move it elsewhere"
            )
    check_writable(destination)


def check_free(destination: Path, *, force: bool, file: bool = False) -> None:
    """Check that there is nothing, or with `force` an output of the same kind.

    Raises:
        OutputExistsError: There is something else.
        EdgeError: The name is too long, or can't be read.
    """
    with readable_os_errors(destination):
        destination.exists()  # raises for a name that is too long
    is_folder = destination.is_dir()
    if is_folder if file else destination.exists() and not is_folder:
        found, needed = ("folder", "file") if file else ("file", "folder")
        raise OutputExistsError(f"{destination} is a {found}; --output must name a {needed}")
    is_empty = is_folder and not any(destination.iterdir())
    if destination.exists() and not is_empty and not force:
        raise exists_already(destination)


def check_writable(destination: str | Path) -> None:
    """Check that a file or folder can be created beside `destination`, or where that will be.

    Raises:
        EdgeError: It can't.
    """
    folder = Path(os.path.abspath(destination)).parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        # What a filesystem permits is known only by trying.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EdgeError(f"{destination} can't be written: {folder}: {error.strerror}") from None


def exists_already(destination: Path) -> OutputExistsError:
    """The error of an output that exists where `force` is off."""
    return OutputExistsError(
        f"{destination} already exists; choose another --output, or --force to replace it"
    )
