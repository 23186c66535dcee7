"""Rows made from shell commands: a command line in, its words as an indented object out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from edge.runtime.errors import DataError
from edge.runtime.rows import read_rows, split_file

Pairs = list[tuple[str, str]]
Writer = Callable[[str, int | None], str | None]
# Names, paths, options and URLs. Quotes, brackets and expansions need a larger model to learn.
_WORD = re.compile(r"[\w./:=@%+,~^-]+")


def command_as_json(command: str, max_args: int | None = None) -> str | None:
    """The words of a command line as `{"cmd": …, "args": […]}`, on several lines.

    Indented by tabs, so that newlines and tabs are what a model has to write.

    Returns:
        None if the line has no words, one with quotes, brackets or expansions, or more than
        `max_args` after the first.
    """
    words = command.split(" ")
    if not all(_WORD.fullmatch(word) for word in words):
        return None
    if max_args is not None and len(words) > 1 + max_args:
        return None
    return json.dumps({"cmd": words[0], "args": words[1:]}, indent="\t", ensure_ascii=False)


def command_as_words(command: str, max_args: int | None = None) -> str | None:
    """The words of a command line in quotes, on one line; None as in `command_as_json`.

    A model that knows them has the skill that JSON needs, but none of its layout. It is to the
    adapter of the JSON rows what FLAN-T5 would be: a base that can do the task in another form.
    """
    if command_as_json(command, max_args) is None:
        return None
    return " ".join(f'"{word}"' for word in command.split(" "))


def command_rows(
    commands: Iterable[str],
    max_characters: int,
    max_args: int | None,
    taken: set[str],
    write: Writer = command_as_json,
) -> Pairs:
    """Pairs of a command and its target, each command once.

    Args:
        commands: Command lines.
        max_characters: Commands with a longer target are left out.
        max_args: Commands with more arguments are left out.
        taken: Commands to leave out; those of the result are added.
        write: Makes the target.
    """
    rows = []
    for command in commands:
        target = write(command, max_args)
        if target is None or len(target) > max_characters or command in taken:
            continue
        taken.add(command)
        rows.append((command, target))
    return rows


def write_command_rows(
    data: Path,
    folder: Path,
    *,
    max_characters: int,
    max_args: int | None = None,
    limit: int | None = None,
    write: Writer = command_as_json,
) -> dict[str, int]:
    """Write train.jsonl and dev.jsonl with rows of commands; no command is in both.

    Args:
        data: A folder with train and dev files whose targets are command lines.
        folder: The folder to write to; existing files are replaced.
        max_characters: Commands with a longer target are left out.
        max_args: Commands with more arguments are left out.
        limit: Use only so many rows of each split, spread evenly over the file.
        write: Makes the targets.

    Returns:
        The number of rows of each split.

    Raises:
        DataError: A split is missing, malformed, or has no row that can be used.
    """
    taken: set[str] = set()
    splits: dict[str, Pairs] = {}
    for split in ("dev", "train"):
        file = split_file(data, split)
        if file is None:
            raise DataError(f"no {split} file; the folder must have train and dev files", path=data)
        commands = (row.target or "" for row in read_rows(file))
        rows = command_rows(commands, max_characters, max_args, taken, write)
        if not rows:
            raise DataError("no target is a command line short enough to use", path=file)
        if limit is not None and limit < len(rows):
            rows = [rows[n * len(rows) // limit] for n in range(limit)]
        splits[split] = rows
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = (json.dumps({"input": command, "target": t}) + "\n" for command, t in rows)
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {split: len(rows) for split, rows in splits.items()}
