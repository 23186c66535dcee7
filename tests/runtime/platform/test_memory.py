"""Freed memory goes back to the system."""

from __future__ import annotations

import sys

import numpy as np
import psutil
import pytest

from edge.runtime.platform.memory import release_free_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc_trim")
def test_freed_pages_leave_the_process() -> None:
    process = psutil.Process()
    # Too small for pages of their own; the last block holds the heap's end where it is.
    blocks = [np.ones(12_000) for _ in range(800)]
    full = process.memory_info().rss
    del blocks[:-1]
    release_free_memory()
    assert process.memory_info().rss < full - 40_000_000
    assert blocks[0].sum() == 12_000
