"""Checks of the generation settings in a manifest: the defaults, and those of single tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.runtime.errors import ArtifactError, UsageError, one_line
from edge.runtime.options import GenerationOptions

MAX_TEMPLATE_CHARS = 1 << 14  # of a prompt or a prefix
_MAX_TASKS = 1000


def check_generation(values: Mapping[str, Any], path: Path, name: str = "generation") -> None:
    """Check that a section holds generation options that can be a model's defaults.

    Args:
        values: The options by name.
        path: The manifest, for error messages.
        name: The name of the section, for error messages.

    Raises:
        ArtifactError: An unknown option, an invalid value, or a constraint.
    """
    try:
        options = GenerationOptions().override(values)
    except (UsageError, TypeError, OverflowError) as error:
        raise ArtifactError(f"{path}: {name}: {one_line(error)}; export it again") from None
    if options.constraint is not None:
        raise ArtifactError(f"{path}: {name}: {options.constraint[0]} is no default of a model")


def check_tasks(tasks: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Check the prefix and the generation options of every task.

    Args:
        tasks: The manifest's `task_specific_params`.
        path: The manifest, for error messages.

    Raises:
        ArtifactError: Too many tasks, a prefix that is no short text, or see `check_generation`.
    """
    if len(tasks) > _MAX_TASKS:
        raise ArtifactError(f"{path}: task_specific_params has more than {_MAX_TASKS} tasks")
    for task, values in tasks.items():
        name = f"task_specific_params.{task:.80}"
        prefix = values.get("prefix", "")
        if not isinstance(prefix, str) or len(prefix) > MAX_TEMPLATE_CHARS:
            raise ArtifactError(
                f"{path}: {name}.prefix must be a text of at most {MAX_TEMPLATE_CHARS:,} characters"
            )
        check_generation({k: v for k, v in values.items() if k != "prefix"}, path, name)
