"""Recommended epochs and dropout by the number of rows, for fine-tuning a pretrained model.

Small data sets need more epochs to be learned and more dropout against overfitting; large ones are
learned in one or two epochs. The ranges are common practice; each value is the middle of its range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """Data sets of fewer than `below` rows; epochs from `min_epochs` to `max_epochs` are usual."""

    below: float
    name: str
    epochs: float
    min_epochs: int
    max_epochs: int
    dropout: float


BANDS = (
    Band(1_000, "fewer than 1,000 rows", 8.0, 5, 10, 0.2),
    Band(5_000, "1,000 to 5,000 rows", 5.0, 3, 7, 0.15),
    Band(50_000, "5,000 to 50,000 rows", 4.0, 3, 5, 0.1),
    Band(math.inf, "50,000 rows or more", 2.0, 1, 3, 0.05),
)


def recommended_epochs(rows: int) -> tuple[float, str]:
    """The number of epochs for `rows` training rows, and the reason."""
    band = _band(rows)
    return band.epochs, f"for {band.name} ({band.min_epochs} to {band.max_epochs} are usual)"


def recommended_dropout(rows: int) -> tuple[float, str]:
    """The dropout for `rows` training rows, and the reason."""
    band = _band(rows)
    return band.dropout, f"for {band.name} (fewer rows need more dropout)"


def _band(rows: int) -> Band:
    return next(band for band in BANDS if rows < band.below)
