"""Parameter types of the options: paths, durations, lists of whole numbers; names that complete."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.runtime.durations import format_duration, parse_duration
from edge.runtime.errors import UsageError

if TYPE_CHECKING:  # not generic in older versions of click
    from click.shell_completion import CompletionItem

    _FloatType = click.ParamType[float]
    _TextType = click.ParamType[str]
    _TupleType = click.ParamType[tuple[int, ...]]
else:
    _FloatType = _TextType = _TupleType = click.ParamType

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(1)
SEED = click.IntRange(0, 2**32 - 1)


class InputPath(click.Path):
    """A file to read; `-` is standard input, kept in a temporary file until the command ends."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path of the file."""
        if value != "-" or ctx is None or ctx.resilient_parsing:
            return super().convert(value, param, ctx)
        from edge.cli.standard_input import saved_input
        from edge.runtime.errors import UsageError

        root = ctx.find_root()
        if root.meta.get(_READ):
            raise UsageError("standard input can be read only once; give one - only")
        root.meta[_READ] = True
        return root.with_resource(saved_input())


class OutputPath(click.Path):
    """A destination, checked by `edge.cli.output_paths` before the command runs."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)


OUTPUT = OutputPath()
_READ = "edge.cli.standard_input"  # in the context: whether a parameter took it
INPUT = InputPath()

Completion = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def completing(names: Iterable[str] | Callable[[], Iterable[str]]) -> Completion:
    """The `shell_complete` of an option whose values are `names`, or what it returns."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = names() if callable(names) else names
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]

    return complete


class Duration(_FloatType):
    """A duration such as `90s`, `5m` or `2h`; a plain number is seconds. The value is in seconds.

    Args:
        minimum: Shortest accepted duration in seconds. 0 accepts 0 itself.
        maximum: Longest accepted duration in seconds.
    """

    name = "duration"

    def __init__(self, minimum: float | None = None, maximum: float = math.inf) -> None:
        self._minimum = minimum
        self._maximum = maximum

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds of `value`."""
        if self._minimum == 0 and str(value).strip() in ("0", "0s"):
            return 0.0
        name = param.opts[-1] if param else "duration"
        try:
            seconds = parse_duration(value, name)
        except UsageError as error:
            raise click.UsageError(str(error), ctx) from None
        least = self._minimum or 0.0
        if not least <= seconds <= self._maximum:
            bounds = f"at least {format_duration(least)}" if least else ""
            if math.isfinite(self._maximum):
                bounds += f"{' and ' if bounds else ''}at most {format_duration(self._maximum)}"
            self.fail(f"{value} is out of range: it must be {bounds}", param, ctx)
        return seconds


class Origin(_TextType):
    """An origin as browsers send it, such as `https://app.example:8443`, or `*` for any."""

    name = "origin"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The origin."""
        if not re.fullmatch(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@\s]+", str(value)):
            self.fail(
                f"{value!r} is not an origin: scheme and host without a path, such as"
                " https://app.example or http://localhost:3000, or *",
                param,
                ctx,
            )
        return str(value)


class FiniteFloat(_FloatType):
    """A finite number above 0, or with `minimum` at least that.

    Args:
        minimum: Least accepted value.
        maximum: Largest accepted value.
    """

    name = "float"

    def __init__(self, minimum: float | None = None, maximum: float = math.inf) -> None:
        self._minimum = minimum
        self._maximum = maximum

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        low = number > 0 if self._minimum is None else number >= self._minimum
        if not (low and math.isfinite(number) and number <= self._maximum):
            least = "above 0" if self._minimum is None else f"at least {self._minimum:g}"
            most = f" and at most {self._maximum:g}" if math.isfinite(self._maximum) else ""
            self.fail(f"{value!r} must be a finite number {least}{most}", param, ctx)
        return number


POSITIVE = FiniteFloat()


class IntegerList(_TupleType):
    """Whole numbers separated by commas: `1,8`. The value is a tuple."""

    name = "integers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """(1, 8) from "1,8"."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(re.fullmatch(r"[0-9]{1,18}", part) for part in parts):
            self.fail(f"{value!r} is not a list of whole numbers such as 1,2", param, ctx)
        return tuple(int(part) for part in parts)
