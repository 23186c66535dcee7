"""Artifacts that are not published yet."""

from __future__ import annotations

from pathlib import Path

from edge.runtime.model import Model, load
from edge.runtime.platform.cpu import service_threads

# One thread checks smaller models in seconds, and leaves the other cores alone.
_LARGE_BYTES = 64 << 20


def load_staged(folder: Path) -> Model:
    """Load an artifact that this process wrote, to check it; its code can be trusted.

    The checks run whole batches, so that large models get several threads, whatever the tuned
    number for single inputs is.
    """
    size = sum(path.stat().st_size for path in folder.iterdir())
    threads = service_threads() if size >= _LARGE_BYTES else None
    return load(folder, trust_code=True, threads=threads)
