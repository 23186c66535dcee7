"""Column names of data, guessed where there is one sensible guess."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

# Input and target under the names that public data sets use.
_PAIRS = (
    ("input", "target"),
    ("question", "answer"),
    ("source", "target"),
    ("text", "summary"),
    ("instruction", "output"),
    ("src", "tgt"),
    ("prompt", "completion"),
    ("document", "summary"),
)
_log = logging.getLogger("edge.data")
_said: set[str] = set()


@dataclass(frozen=True)
class Columns:
    """Column names of a row's input, target and task."""

    input: str = "input"
    target: str = "target"
    task: str = "task"


DEFAULT = Columns()


def note(message: str) -> None:
    """Log a message about data, once in a process, as a warning of the logger "edge.data"."""
    if message not in _said:
        _said.add(message)
        _log.warning(message)


def guess_columns(
    columns: Columns, names: Sequence[str], *, need_target: bool, path: object
) -> Columns:
    """`columns`, with other names in place of missing ones if there is one sensible guess.

    Names that differ from the defaults were chosen by the user and stay. The guess is logged.

    Args:
        columns: The wanted names.
        names: The names of the data.
        need_target: Whether a target is needed.
        path: The data, for the message.
    """
    no_input = columns.input not in names
    no_target = need_target and columns.target not in names
    if (no_input and columns.input != DEFAULT.input) or not (no_input or no_target):
        return columns
    if no_target and columns.target != DEFAULT.target:
        return columns
    if need_target and sum(source in names and target in names for source, target in _PAIRS) > 1:
        return columns  # two pairs are there
    fits = [
        (source, target)
        for source, target in _PAIRS
        if (not no_input or source in names)
        and (not need_target or (target in names if no_target else target == columns.target))
    ]
    if no_input:
        sources = {source for source, _ in fits}
    else:  # an input beside another pair's input, as in instruction/input/output, is ambiguous
        fits = [pair for pair in fits if pair[0] == columns.input or pair[0] not in names]
        sources = {columns.input}
    targets = {target for _, target in fits} if no_target else {columns.target}
    if len(sources) != 1 or len(targets) != 1:
        return columns
    [source], [target] = sources, targets
    found = replace(columns, input=source, target=target)
    said = [f"input is the column {source!r}"] if no_input else []
    said += [f"target is the column {target!r}"] if no_target else []
    note(f"{path}: {', '.join(said)} (choose others with --input-column and --target-column)")
    return found
