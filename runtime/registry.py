"""A lazy table of named implementations: name → "module:Class".

Formats, engines and baselines are looked up by name, so that a library which is not installed costs
nothing until it is asked for. The layout follows lm-evaluation-harness' registry.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from edge.runtime.errors import MissingExtraError, UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """Where an implementation lives and what must be installed for it."""

    target: str  # "package.module:attribute"
    extra: str  # the extra of edge-t5 that installs its libraries
    libraries: tuple[str, ...] = ()  # top-level modules whose absence means "not installed"


class Registry(Generic[T]):
    """Named classes of one kind, imported when they are first looked up."""

    def __init__(self, kind: str, base: str, entries: Mapping[str, Entry]) -> None:
        """`kind` is the word used in messages; `base` ("module:Class") is what entries must be."""
        self.kind = kind
        self._base = base
        self._entries = dict(entries)

    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def entry(self, name: str) -> Entry:
        """The entry called `name`.

        Raises:
            UsageError: no such name; says which there are and which was probably meant.
        """
        if name not in self._entries:
            raise UsageError(unknown_name(self.kind, name, self.names()))
        return self._entries[name]

    def load(self, name: str) -> type[T]:
        """Import and return the class called `name`.

        Raises:
            UsageError: no such name.
            MissingExtraError: a library that it needs is not installed.
            TypeError: the entry points at something that is not a subclass of the base.
        """
        entry = self.entry(name)
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
            raise TypeError(f"{entry.target} is no {base.__name__}")
        return cls


def unknown_name(kind: str, name: str, known: tuple[str, ...]) -> str:
    """The sentence for a name that does not exist, with the closest ones that do."""
    close = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}.{meant} Known: {', '.join(known)}"


def missing_extra(what: str, library: str, extra: str) -> MissingExtraError:
    """The error for a library that is not installed, with the command that installs it."""
    return MissingExtraError(
        f"{what} needs {library}, which is not installed: pip install 'edge-t5[{extra}]'"
    )
