"""Draft heads of models that `edge train` makes: their inputs, and a check before the training."""

from __future__ import annotations

from pathlib import Path

from edge.export.draft.examples import MAX_ROWS, MIN_ROWS, DraftInputs
from edge.train.config import TrainConfig
from edge.train.data import data_files, load_splits
from edge.train.preflight.checks import FAILED, OK, Findings, PreflightContext


def training_inputs(config: TrainConfig) -> DraftInputs:
    """The inputs of a training's rows, without those held out by --dev-ratio.

    Raises:
        DataError: as `load_splits`.
    """
    train = load_splits(config).train
    return DraftInputs([pair.source for pair in train], data_files(Path(config.data))["train"])


def enough_rows(context: PreflightContext) -> Findings:
    """A preflight check: there are enough training rows for a draft head."""
    if context.splits is None or not context.lengths:
        return
    longest = context.config.max_source_length
    fits = sum(source <= longest for source, _ in context.lengths)
    rows = len(context.splits.train)
    if fits < MIN_ROWS and len(context.lengths) == rows:
        yield (
            FAILED,
            f"--draft needs {MIN_ROWS} training rows of at most {longest} tokens; there are {fits}"
            f" of {rows}",
        )
        return
    yield OK, f"a draft head, fitted to at most {MAX_ROWS:,} rows after the training"
