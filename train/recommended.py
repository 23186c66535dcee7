"""Epochs and dropout by the size of the data set, for fine-tuning a pretrained model.

Few rows need more passes to be learned and more dropout not to be learned by heart; many rows are
learned in one or two. The ranges are what practice agrees on; the value is the middle of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """Data sets of fewer than `below` rows; `fewest` to `most` are the usual epochs."""

    below: float
    name: str
    epochs: float
    fewest: int
    most: int
    dropout: float


BANDS = (
    Band(1_000, "fewer than 1,000 rows", 8.0, 5, 10, 0.2),
    Band(5_000, "1,000 to 5,000 rows", 5.0, 3, 7, 0.15),
    Band(50_000, "5,000 to 50,000 rows", 4.0, 3, 5, 0.1),
    Band(math.inf, "50,000 rows or more", 2.0, 1, 3, 0.05),
)


def recommended_epochs(rows: int) -> tuple[float, str]:
    """How many, and why."""
    band = _band(rows)
    return band.epochs, f"for {band.name} ({band.fewest} to {band.most} are usual)"


def recommended_dropout(rows: int) -> tuple[float, str]:
    """How much, and why."""
    band = _band(rows)
    return band.dropout, f"for {band.name} (the fewer, the more dropout)"


def _band(rows: int) -> Band:
    return next(band for band in BANDS if rows < band.below)
