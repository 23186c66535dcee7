"""Export targets: pairs of format and quantization, planned from what the user asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.export.base import EXPORTERS
from edge.runtime.errors import UsageError
from edge.runtime.registry import is_installed, unknown_name

ALL_FORMATS = "all"


@dataclass(frozen=True)
class Target:
    """One artifact to make: a format and a canonical quantization of it."""

    format: str
    quantization: str

    @property
    def name(self) -> str:
        """`format-quantization`, such as `onnx-int8`: also the name of the artifact's folder."""
        return f"{self.format}-{self.quantization}"


def plan_targets(
    formats: str | Sequence[str],
    quantizations: Sequence[str] = (),
    choose: Callable[[str], str] | None = None,
) -> list[Target]:
    """Every format in every quantization, without duplicates.

    Args:
        formats: one or several format names; "all" stands for every format whose libraries are
            installed.
        quantizations: names or aliases, each valid for every format; empty means "auto".
        choose: format → canonical quantization that "auto" stands for. None takes the default of
            the format.

    Raises:
        UsageError: no format, or an unknown format or quantization.
        MissingExtraError: a format's library is not installed.
    """
    names = [formats] if isinstance(formats, str) else list(formats)
    if not names:
        raise UsageError(f"no format given. Choose from: {', '.join(known_formats())}")
    for name in names:
        if name not in known_formats():
            raise UsageError(unknown_name("format", name, known_formats()))
    if ALL_FORMATS in names:
        names = [name for name in EXPORTERS.names() if name not in missing_formats()]
        names = names or list(EXPORTERS.names())  # the error says what to install
    asked = [(name, one.lower()) for name in names for one in quantizations or ("auto",)]
    # Every name is checked before `choose`, which takes time.
    resolved = {pair: EXPORTERS.load(pair[0]).resolve(pair[1]) for pair in asked}
    if choose is not None:
        resolved |= {pair: choose(pair[0]) for pair in resolved if pair[1] == "auto"}
    return list(dict.fromkeys(Target(pair[0], resolved[pair]) for pair in asked))


def missing_formats() -> dict[str, str]:
    """Formats that can't be exported to because a library is not installed → its extra."""
    entries = {name: EXPORTERS.entry(name) for name in EXPORTERS.names()}
    return {
        name: entry.extra
        for name, entry in entries.items()
        if not all(map(is_installed, entry.libraries))
    }


def known_formats() -> tuple[str, ...]:
    """The names that `plan_targets` takes as formats."""
    return (*EXPORTERS.names(), ALL_FORMATS)


def destination(output: str | Path, target: Target, targets: Sequence[Target]) -> Path:
    """The folder of one target: `output` if it is the only one, else `output/<target.name>`."""
    return Path(output) if len(targets) == 1 else Path(output) / target.name
