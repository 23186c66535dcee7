"""Limits of one request: how much it may ask for, and how long it may take."""

from __future__ import annotations

import math

from starlette.requests import Request

from edge.runtime.options import GenerationOptions
from edge.runtime.serve.errors import ApiError
from edge.runtime.serve.settings import ServeSettings

_TIMEOUT_HEADER = "x-request-timeout"


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
