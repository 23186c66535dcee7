"""Types of the preflight checks, and what several checks share."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge.train.config import ResolvedTrainConfig
from edge.train.data.pairs import Pair, Splits
from edge.train.data.tokenization import token_counts
from edge.train.device import DeviceConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"
_SAMPLE = 20_000  # rows that are tokenized at most
_MAX_RATIO = 0.2  # of rows with a problem: above it the check fails, below it is a warning

Findings = Iterator[tuple[str, str]]  # status, detail


@dataclass(frozen=True)
class Check:
    """The result of one check; `status` is ok, warning, failed or skipped."""

    name: str
    status: str
    detail: str


@dataclass
class PreflightContext:
    """The run to check, and what earlier checks found; None where they failed.

    Attributes:
        config: The resolved configuration.
        work_dir: A folder for temporary files.
        check_output: Whether the output folder is checked.
        device: Device and precision.
        splits: The data.
        model_config: The model's configuration.
        tokenizer: The model's tokenizer, extended if --vocabulary asks for it.
        extended: Whether it was extended.
        train_pairs: The training pairs, or a sample of them.
        lengths: Tokens of input and target of each of `train_pairs`, not cut.
    """

    config: ResolvedTrainConfig
    work_dir: Path
    check_output: bool
    device: DeviceConfig | None = None
    splits: Splits | None = None
    model_config: PretrainedConfig | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    extended: bool = False
    train_pairs: list[Pair] = field(default_factory=list)
    lengths: list[tuple[int, int]] = field(default_factory=list)


def status_by_ratio(count: int, total: int) -> str:
    """The status of a check that finds a problem in `count` of `total` rows."""
    return OK if not count else FAILED if count > _MAX_RATIO * total else WARNING


def sample(pairs: list[Pair]) -> list[Pair]:
    """All pairs, or 20,000 of them: the same ones every time."""
    return pairs if len(pairs) <= _SAMPLE else random.Random(0).sample(pairs, _SAMPLE)


def pair_lengths(pairs: list[Pair], tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """Tokens of the input and target of each pair, </s> counted."""
    sources = token_counts([pair.source for pair in pairs], tokenizer)
    targets = token_counts([pair.target for pair in pairs], tokenizer)
    return [*zip(sources, targets, strict=True)]
