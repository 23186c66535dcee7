"""Paired significance tests: two models on the same rows, one-sided."""

from __future__ import annotations

import math

import numpy as np


def paired_t_test(differences: np.ndarray) -> float:
    """One-sided p-value of a mean above 0, by the normal approximation of Student's t-test.

    The approximation holds for the 32 rows and more that are compared here.
    """
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    mean = float(differences.mean())
    if spread == 0.0:
        return 0.0 if mean > 0 else 1.0
    statistic = mean / (spread / math.sqrt(len(differences)))
    return 0.5 * math.erfc(statistic / math.sqrt(2))


def mcnemar_test(losses: int, gains: int) -> float:
    """The exact one-sided McNemar test.

    Only rows that exactly one of the two answers right say which is better. If both were as
    accurate, each such row would be lost or gained with probability 1/2 (McNemar, "Note on the
    sampling error of the difference between correlated proportions or percentages", 1947).

    Args:
        losses: Rows that only the first model has right.
        gains: Rows that only the second model has right.

    Returns:
        The probability of `gains` or fewer of `losses + gains`; 1.0 if there are none.
    """
    rows = losses + gains
    term = total = 1  # binomial coefficients, in exact integers
    for count in range(gains):
        term = term * (rows - count) // (count + 1)
        total += term
    return total / (1 << rows)


def lost_and_won(rights: np.ndarray, reference: np.ndarray) -> tuple[int, int]:
    """How many rows only the reference has right, and how many only the other model has.

    Args:
        rights: Whether the model has each row right, bool [rows].
        reference: Whether the reference has.
    """
    return int((reference & ~rights).sum()), int((rights & ~reference).sum())
