"""A lazy registry of named implementations: name → "module:Class".

Formats, engines and baselines are looked up by name, so that a library is imported only when it is
used. Modeled on the registry of lm-evaluation-harness.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from edge.runtime.errors import MissingExtraError, UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """Where an implementation is defined and what must be installed for it."""

    target: str  # "package.module:attribute"
    extra: str  # the extra of edge-t5 that installs its libraries
    libraries: tuple[str, ...] = ()  # top-level modules that the extra installs


class Registry(Generic[T]):
    """Named classes of one kind, imported on first use.

    Args:
        kind: The noun used in messages, such as "format".
        base: "module:Class" that every entry must be a subclass of.
        entries: The entries by name.
    """

    def __init__(self, kind: str, base: str, entries: Mapping[str, Entry]) -> None:
        self.kind = kind
        self._base = base
        self._entries = dict(entries)

    def names(self) -> tuple[str, ...]:
        """All names, in the order of the table."""
        return tuple(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def entry(self, name: str) -> Entry:
        """The entry called `name`.

        Raises:
            UsageError: No such name; the message suggests the closest one and lists all.
        """
        if name not in self._entries:
            raise UsageError(unknown_name(self.kind, name, self.names()))
        return self._entries[name]

    def load(self, name: str) -> type[T]:
        """Import and return the class called `name`.

        Raises:
            UsageError: No such name.
            MissingExtraError: A library that it needs is not installed.
            TypeError: The entry is not a subclass of the base.
        """
        entry = self.entry(name)
        # They may be imported later than the module.
        require(f"{self.kind} {name!r}", entry.extra, *entry.libraries)
        module, _, attribute = entry.target.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in entry.libraries:
                raise
            raise missing_extra(f"{self.kind} {name!r}", missing, entry.extra) from error
        base_module, _, base_attribute = self._base.partition(":")
        base = getattr(importlib.import_module(base_module), base_attribute)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise TypeError(f"{entry.target} is not a subclass of {base.__name__}")
        return cls


def is_installed(library: str) -> bool:
    """Whether a library can be imported, by the import name of its top-level module."""
    try:
        return importlib.util.find_spec(library) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def require(what: str, extra: str, *libraries: str) -> None:
    """Check that libraries are installed, before work that would need them late.

    Raises:
        MissingExtraError: One is not; it names the extra.
    """
    for library in libraries:
        if not is_installed(library):
            raise missing_extra(what, library, extra)


def unknown_name(kind: str, name: str, known: tuple[str, ...]) -> str:
    """The message for an unknown name, with the closest known one and the list of all."""
    close = difflib.get_close_matches(name, known, n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}.{suggestion} Known: {', '.join(known)}"


def missing_extra(what: str, library: str, extra: str) -> MissingExtraError:
    """The error for a missing library, with the command that installs it.

    Args:
        what: What needs the library, such as "format 'onnx'".
        library: The library's import name.
        extra: The extra of edge-t5 that installs it.
    """
    from edge.runtime.install import install_command

    return MissingExtraError(
        f"{what} needs {library}, which is not installed: {install_command(extra)}"
    )
