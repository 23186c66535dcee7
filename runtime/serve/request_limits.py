"""Limits of one request: how much it may ask for, and how long it may take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from edge.runtime.constraint_options import KINDS
from edge.runtime.options import GenerationOptions
from edge.runtime.serve.errors import ApiError
from edge.runtime.serve.settings import ServeSettings

_TIMEOUT_HEADER = "x-request-timeout"
_MAX_CONSTRAINT_CHARS = 1 << 14


def check_work(options: GenerationOptions, texts: int, settings: ServeSettings) -> None:
    """Check what a request asks for against the service's limits.

    Raises:
        ApiError: It asks for too much.
    """
    for param, value, limit in (
        ("n", options.num_return_sequences, settings.max_n),
        ("num_beams", options.num_beams, settings.max_beams),
    ):
        if value > limit:
            message = f"{param} is {value}, this service's limit is {limit}"
            raise ApiError(400, "invalid_value", message, param=param)
    sequences = texts * max(options.num_return_sequences, options.num_beams)
    if sequences * options.max_new_tokens > settings.max_work:
        raise ApiError(
            400,
            "invalid_value",
            f"{sequences} sequences of {options.max_new_tokens} new tokens are more than this"
            f" service's limit of {settings.max_work:,} tokens per request. Lower"
            " max_new_tokens, or send fewer texts",
            param="max_new_tokens",
        )


def check_constraint(chosen: Mapping[str, Any], settings: ServeSettings) -> None:
    """Check that a request may constrain its answers, and the size of what it sends for that.

    Args:
        chosen: The generation options that the client gave.
        settings: The service's.

    Raises:
        ApiError: It may not, or sends too much.
    """
    names = [name for name in (*KINDS, "copy_allow") if chosen.get(name) not in (None, False)]
    if not names:
        return
    if not settings.allow_constraints:
        message = f"{names[0]}: this service takes no constraints (edge serve --allow-constraints)"
        raise ApiError(400, "unsupported_parameter", message, param=names[0])
    if len(json.dumps([chosen[name] for name in names])) > _MAX_CONSTRAINT_CHARS:
        message = f"{names[0]} must have at most {_MAX_CONSTRAINT_CHARS:,} characters"
        raise ApiError(400, "invalid_value", message, param=names[0])


def request_timeout(request: Request, settings: ServeSettings) -> float:
    """Seconds until the request's deadline: the service's, or the client's if shorter.

    Raises:
        ApiError: The client's is not a number of seconds.
    """
    given = request.headers.get(_TIMEOUT_HEADER)
    if given is None:
        return settings.deadline
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ApiError(
            400,
            "invalid_value",
            f"{_TIMEOUT_HEADER} must be a number of seconds above 0",
            param=_TIMEOUT_HEADER,
        )
    return min(seconds, settings.deadline)
