"""Access to data sets of the hub through the `datasets` library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edge.runtime.errors import DataError, library_errors
from edge.runtime.hub.errors import quiet_hub
from edge.runtime.hub.reach import why_unreachable


@contextlib.contextmanager
def data_set_access(name: str, data: str) -> Iterator[None]:
    """The boundary around calls of `datasets` that may ask the hub.

    If the hub can't be reached, the library works offline: it takes its own cache at once, without
    a minute of retries.

    Args:
        name: OWNER/NAME of the data set.
        data: What the user called it, for the error.

    Raises:
        DataError: The data set can't be read.
    """
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE
    reason = "offline mode" if before else why_unreachable(f"/api/datasets/{name}")
    what = "the data set can't be read from the hub"
    if reason is not None:
        what = (
            f"the data set is not in the cache, and {constants.ENDPOINT} can't be reached: {reason}"
        )
    config.HF_HUB_OFFLINE = reason is not None
    try:
        with quiet_hub(), library_errors(DataError, data, what):
            yield
    finally:
        config.HF_HUB_OFFLINE = before
