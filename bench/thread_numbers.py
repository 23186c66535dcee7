"""Numbers of threads to try in a search for the fastest settings."""

from __future__ import annotations

from collections.abc import Sequence

from edge.runtime.errors import UsageError
from edge.runtime.platform.cpu import usable_cores


def thread_numbers(cores: int) -> list[int]:
    """Thread counts to try: 1 to 4, then 6, 8, 12, 16, 24, …, and all of the cores."""
    steps = [1, 2, 3, 4]
    while steps[-1] < cores:
        steps.append(2 * steps[-2])
    return sorted({min(step, cores) for step in steps})


def checked_threads(threads: Sequence[int]) -> list[int]:
    """The numbers of threads to try, ascending, each once.

    Raises:
        UsageError: more threads than cores.
    """
    cores = usable_cores()
    for number in threads:
        if not 1 <= number <= cores:
            raise UsageError(
                f"--threads-to-try must be from 1 to {cores}, the cores that this process may"
                f" use, not {number}"
            )
    return sorted(set(threads))
