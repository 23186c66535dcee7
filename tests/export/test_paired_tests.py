"""The paired tests that `--quantize auto` and the benchmark decide by."""

from __future__ import annotations

import numpy as np
import pytest

from edge.export.paired_tests import lost_and_won, mcnemar_test, paired_t_test


@pytest.mark.parametrize(
    ("losses", "gains", "p"),
    [(0, 0, 1.0), (5, 0, 1 / 32), (0, 5, 1.0), (8, 2, 56 / 1024), (3, 3, 42 / 64)],
)
def test_mcnemar(losses: int, gains: int, p: float) -> None:
    assert mcnemar_test(losses, gains) == pytest.approx(p)


def test_t_test() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(100)
    assert paired_t_test(noise - noise.mean()) == pytest.approx(0.5)
    assert paired_t_test(noise - noise.mean() + 1) < 1e-6
    assert paired_t_test(noise - noise.mean() - 1) > 0.999
    assert paired_t_test(np.zeros(10)) == 1.0
    assert paired_t_test(np.full(10, 0.1)) == 0.0


def test_rows_that_one_of_two_has_right() -> None:
    rights = np.array([True, False, False, True, False])
    reference = np.array([False, True, True, True, False])
    assert lost_and_won(rights, reference) == (2, 1)
