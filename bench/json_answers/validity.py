"""Ratios of an artifact's answers that are JSON, the right value, and the target to the letter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.runtime.model import load
from edge.runtime.rows import Row

_BATCH = 32


@dataclass(frozen=True)
class Validity:
    """Counts over the greedy answers to some rows.

    Attributes:
        artifact: Format and quantization.
        rows: Number of rows.
        valid: Answers that `json.loads` reads.
        equal: Answers whose value is that of the target.
        verbatim: Answers that are the target, white space included.
        unfinished: Answers that were cut at `max_new_tokens`.
        invalid: The first few inputs with an answer that is not JSON, each with its answer.
    """

    artifact: str
    rows: int
    valid: int
    equal: int
    verbatim: int
    unfinished: int
    invalid: tuple[tuple[str, str], ...] = ()

    @property
    def valid_ratio(self) -> float:
        """Ratio of the answers that are JSON."""
        return self.valid / self.rows


def measure_artifact(
    folder: Path, rows: Sequence[Row], *, max_new_tokens: int, threads: int, shown: int = 5
) -> Validity:
    """Answer all rows greedily, without constraints, and count what is JSON.

    Args:
        folder: The artifact.
        rows: Rows whose targets are JSON.
        max_new_tokens: Longest answer in tokens.
        threads: Threads of the engine.
        shown: How many answers that are not JSON to keep.
    """
    inputs = [row.input for row in rows]
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "num_beams": 1}
    with load(folder, threads=threads, trust_code=True) as model:
        manifest = model.artifact.manifest
        answers = model.generate(inputs, batch_size=_BATCH, on_long="truncate", **options)
    texts = [answer.text for answer in answers]
    values = [_parsed(text) for text in texts]
    targets = [row.target or "" for row in rows]
    failed = [pair for pair, value in zip(zip(inputs, texts, strict=True), values, strict=True)
              if value is None]  # fmt: skip
    return Validity(
        artifact=f"{manifest.format}-{manifest.quantization}",
        rows=len(rows),
        valid=len(rows) - len(failed),
        equal=sum(
            value is not None and value[0] == json.loads(target)
            for value, target in zip(values, targets, strict=True)
        ),
        verbatim=sum(text == target for text, target in zip(texts, targets, strict=True)),
        unfinished=sum(answer.finish_reason == "length" for answer in answers),
        invalid=tuple(failed[:shown]),
    )


def _parsed(text: str) -> tuple[Any] | None:
    """The value of a JSON text, in a tuple as it may be None; None if it is not JSON."""
    try:
        return (json.loads(text),)
    except ValueError:
        return None
