"""Source and target texts of the splits of DATA, with the prompt applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.errors import DataError
from edge.runtime.printing import shorten
from edge.runtime.rows import (
    SPLITS,
    Columns,
    Prompt,
    Row,
    data_size,
    holds_splits,
    read_rows,
    split_file,
    train_file,
)
from edge.train.data.split import split_by_hash

if TYPE_CHECKING:
    from edge.train.config import TrainConfig


@dataclass(frozen=True)
class Pair:
    """One example: the model's input with the prompt applied, and the expected output.

    `span` holds the start and end of the row's own input within `source`; `task` names the row's
    task.
    """

    source: str
    target: str
    span: tuple[int, int] | None = field(default=None, compare=False)
    task: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Splits:
    """The pairs to train on and to evaluate on, and the size of their files in bytes."""

    train: list[Pair]
    dev: list[Pair]
    bytes: int
    warnings: list[str] = field(default_factory=list)


def load_splits(config: TrainConfig) -> Splits:
    """Read DATA with the columns, prompt and dev ratio of `config`.

    Raises:
        DataError: A file or row is not usable, or there is no dev split and no --dev-ratio.
        UsageError: The prompt needs a column that a row does not have.
    """
    data = Path(config.data)
    columns = Columns(config.input_column, config.target_column, config.task_column)
    files = data_files(data)
    train_rows = read_rows(files["train"], columns)
    size = data_size(files["train"])
    warnings = []
    if "dev" in files:
        dev_rows = read_rows(files["dev"], columns)
        size += data_size(files["dev"])
        if config.dev_ratio is not None:
            warnings.append(f"--dev-ratio is ignored because {files['dev'].name} is the dev split")
    elif config.dev_ratio is not None:
        train_rows, dev_rows = split_by_hash(train_rows, config.dev_ratio, data)
    else:
        raise DataError(
            "no dev split to evaluate on. Put a dev.jsonl beside train.jsonl in a folder, or use"
            " --dev-ratio 0.1 to hold out about a tenth of the rows, chosen by a hash of each"
            " row's input (the same rows every time)",
            path=data,
        )
    prompt = Prompt.parse(config.prefix)
    train, dev = make_pairs(train_rows, prompt), make_pairs(dev_rows, prompt)
    shared = {pair.source for pair in train} & {pair.source for pair in dev}
    if shared:
        warnings.append(
            f"{len(shared)} inputs of the dev split are also in the training split, such as"
            f" {shorten(min(shared))!r}; the dev metrics will be too optimistic"
        )
    return Splits(train, dev, size, warnings)


def data_files(data: Path) -> dict[str, Path]:
    """The files of DATA by split: always train; dev and test where a folder has them.

    Raises:
        DataError: There is no train split.
    """
    files = {"train": train_file(data)}
    if holds_splits(data):
        files |= {split: path for split in SPLITS if (path := split_file(data, split)) is not None}
    return files


def make_pairs(rows: Sequence[Row], prompt: Prompt) -> list[Pair]:
    """Apply the prompt to rows that have a target.

    Raises:
        UsageError: The prompt needs a column that a row does not have.
    """
    head = Prompt(prompt.template.partition("{input}")[0])
    pairs = []
    for row in rows:
        assert row.target is not None  # `read_rows` checked it
        source = prompt.apply(row.input, row.fields)
        start = len(head.apply("", row.fields))
        pairs.append(Pair(source, row.target, (start, start + len(row.input)), row.task))
    return pairs


def texts_of(pairs: Sequence[Pair]) -> list[str]:
    """The source and target of each pair."""
    return [text for pair in pairs for text in (pair.source, pair.target)]
