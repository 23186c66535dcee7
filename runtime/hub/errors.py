"""Errors of huggingface_hub as one line: what is wrong, and what to do."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator

from edge.runtime.errors import EdgeError, converted_errors, one_line
from edge.runtime.hub.ids import Repository
from edge.runtime.printing import printable

_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


@contextlib.contextmanager
def hub_errors(
    kind: type[EdgeError], repository: Repository, what: str, *, upload: bool = False
) -> Iterator[None]:
    """The boundary around a call of huggingface_hub. An EdgeError passes unchanged.

    Args:
        kind: Class of the error, such as `ModelError`.
        repository: What is asked for.
        what: Its kind in words, such as "model".
        upload: Whether something is sent to it.

    Raises:
        EdgeError: An error of class `kind`.
    """

    def convert(error: BaseException) -> EdgeError:
        reason = describe(error, repository, what, upload=upload)
        return kind(f"{repository}: {printable(without_token(reason))}")

    with converted_errors(convert):
        yield


def describe(
    error: BaseException, repository: Repository, what: str, *, upload: bool = False
) -> str:
    """One line about an error of huggingface_hub, without the repository's name."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # "Not in the cache" is only the consequence where the hub refused.
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "Error while uploading"
    page = f"{constants.ENDPOINT}/{repository.name}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, GatedRepoError):
        if status == 403:
            return f"gated, and your account has no access. Ask for it at {page}"
        return f"gated. Ask for access at {page}, then {_LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        missing = f"no such {what}" if upload else f"no such folder, and no such {what}"
        return f"{missing} at {constants.ENDPOINT}. Check the name; for a private one {_LOG_IN}"
    if isinstance(error, RevisionNotFoundError):
        return f"no such branch, tag or commit. {page}/commits/main lists them"
    if isinstance(error, EntryNotFoundError):
        return f"incomplete ({one_line(error, 200)})"
    if status == 401:
        return f"the hub does not accept the token. Replace it: {_LOG_IN}"
    if status == 403:
        return f"the token does not permit this ({server_message(error)}). Use another token"
    if status == 404:
        return f"{constants.ENDPOINT} answers as no hub does (status 404). Check HF_ENDPOINT"
    if status:
        return f"the hub answered with status {status} ({server_message(error)}). Try again later"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space left on the device of the cache, {constants.HF_HUB_CACHE}"
    again = "nothing is committed" if upload else "complete files are kept"
    if not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):
        reason = f"{type(error).__name__}: {one_line(error, 200)}"
        return f"the answer of {constants.ENDPOINT} can't be used ({reason}); {again}"
    return (
        f"the connection to {constants.ENDPOINT} failed ({one_line(error, 200)}). Run the command"
        f" again; {again}"
    )


def without_token(text: str) -> str:
    """The text without the user's token, which a library could quote."""
    from huggingface_hub import get_token

    token = get_token()
    return text.replace(token, "(token)") if token else text


def server_message(error: BaseException) -> str:
    """What the hub said, on one line; "no reason given" if it said nothing."""
    return one_line(getattr(error, "server_message", None) or "no reason given", 200)


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Silence huggingface_hub: its progress bars, and its warnings, such as one for each retry."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    # The user's HF_HUB_DISABLE_PROGRESS_BARS wins.
    bars = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not are_progress_bars_disabled()
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()
