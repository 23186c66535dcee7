"""Calibration rows: the inputs and targets whose activations quantization is fitted to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.export.conditioning.texts import CALIBRATION_TEXTS
from edge.export.reference import TorchReference
from edge.export.source import SourceModel
from edge.runtime.errors import DataError
from edge.runtime.options import GenerationOptions
from edge.runtime.rows import (
    Columns,
    Prompt,
    Row,
    data_sha256,
    read_rows,
    train_file,
)
from edge.runtime.text.tokenization import Tokenizer, cut_ids

MAX_ROWS = 256
MIN_ROWS = 8
BUILT_IN = "built-in texts"
_MAX_TARGET_TOKENS = 128
GENERATED_TOKENS = 16

TokenIds = list[int]


@dataclass(frozen=True)
class CalibrationRequest:
    """What `--calibrate` asks for.

    Args:
        data: A JSON-lines file of rows, or a folder with train.jsonl. Only train rows are used.
        columns: Names of the columns.
    """

    data: Path
    columns: Columns = field(default_factory=Columns)


@dataclass(frozen=True)
class Calibration:
    """Tokenized rows. The odd ones are held out: they judge what the even ones fitted.

    Attributes:
        inputs: Source ids of each row, eos at the end.
        targets: Target ids of each row, eos at the end.
        name: The file's name, or "built-in texts".
        sha256: Hash of the file; None for the built-in texts.
        available: Rows of the file before some were chosen.
        skipped: Rows left out since they are longer than the limit.
        generated: Whether the targets are the source's own greedy answers, of at most
            `GENERATED_TOKENS` tokens.
    """

    inputs: list[TokenIds]
    targets: list[TokenIds]
    name: str
    sha256: str | None
    available: int
    skipped: int
    generated: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def fitted(self) -> Calibration:
        """The rows that statistics are taken from."""
        return self._every_second(0)

    @property
    def held_out(self) -> Calibration:
        """The rows that precisions are compared on."""
        return self._every_second(1)

    def _every_second(self, start: int) -> Calibration:
        return dataclasses.replace(
            self, inputs=self.inputs[start::2], targets=self.targets[start::2]
        )

    def as_manifest(self) -> dict[str, Any]:
        """The manifest's record: file name, hash and number of rows."""
        return {
            "data": self.name,
            "sha256": self.sha256,
            "rows": len(self),
            "available": self.available,
            "skipped": self.skipped,
        }


def read_calibration(
    request: CalibrationRequest | None,
    source: SourceModel,
    tokenizer: Tokenizer,
    prompt: Prompt,
    max_input_tokens: int,
) -> Calibration:
    """The rows that `request` names, or built-in English texts with the model's own answers.

    At most `MAX_ROWS` rows, spread evenly over the file, so that the same file gives the same rows.

    Raises:
        DataError: The file is missing or malformed, or fewer than `MIN_ROWS` rows can be used.
        UsageError: The prompt needs a column that a row does not have.
    """
    if request is None:
        fields = dict.fromkeys(prompt.fields, "text")
        inputs = tokenizer.encode([prompt.apply(text, fields) for text in CALIBRATION_TEXTS])
        rows = [ids for ids in inputs if len(ids) <= max_input_tokens] or [
            cut_ids(ids, max_input_tokens, tokenizer.eos) for ids in inputs
        ]
        targets = _generated(source, tokenizer, rows)
        skipped = len(inputs) - len(rows)
        return Calibration(rows, targets, BUILT_IN, None, len(inputs), skipped, generated=True)
    path = train_file(request.data)
    rows_read = read_rows(path, request.columns)
    chosen, skipped = _usable(rows_read, prompt, tokenizer, max_input_tokens)
    if len(chosen) < MIN_ROWS:
        longer = f"; {skipped:,} are longer than {max_input_tokens} tokens" if skipped else ""
        raise DataError(
            f"{len(chosen)} of {len(rows_read):,} rows can calibrate a model{longer}. Use at least"
            f" {MIN_ROWS} different ones",
            path=path,
        )
    step = max(1, -(-len(chosen) // MAX_ROWS))
    chosen = chosen[::step]
    return Calibration(
        [ids for ids, _ in chosen],
        [ids for _, ids in chosen],
        path.name,
        data_sha256(path),
        len(rows_read),
        skipped,
    )


def _usable(
    rows: Sequence[Row], prompt: Prompt, tokenizer: Tokenizer, max_input_tokens: int
) -> tuple[list[tuple[TokenIds, TokenIds]], int]:
    """Inputs and targets of rows that are short enough, each once; and how many are too long."""
    inputs = tokenizer.encode([prompt.apply(row.input, row.fields) for row in rows])
    targets = tokenizer.encode([row.target or "" for row in rows])
    fitting = [
        (ids, target)
        for ids, target in zip(inputs, targets, strict=True)
        if len(ids) <= max_input_tokens and len(target) <= _MAX_TARGET_TOKENS
    ]
    # A repeated row must not be held out from itself.
    chosen = {(*ids, None, *target): (ids, target) for ids, target in fitting}
    return list(chosen.values()), len(rows) - len(fitting)


def _generated(
    source: SourceModel, tokenizer: Tokenizer, inputs: Sequence[TokenIds]
) -> list[TokenIds]:
    """The source's greedy answers, which stand in for targets."""
    reference = TorchReference(source, pieces=tokenizer.pieces)
    options = GenerationOptions(max_new_tokens=GENERATED_TOKENS, min_new_tokens=1)
    return [[*row, tokenizer.eos] for row in reference.answers(inputs, options)]
