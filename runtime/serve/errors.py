"""HTTP errors with the body of OpenAI's API: type, code, message and param."""

from __future__ import annotations

import math
from typing import Any

from edge.runtime.errors import (
    ArtifactError,
    ConstraintError,
    EdgeError,
    InputTooLongError,
    OutputError,
    UsageError,
)

# OpenAI's error type for each status.
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    421: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """An error response.

    Attributes:
        status: HTTP status.
        code: Machine-readable name of the error.
        message: What is wrong and what to do.
        param: The parameter at fault.
        retry_after: Seconds after which the client may try again.
        raw_text: The answer that failed the output check.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        raw_text: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.raw_text = raw_text

    @property
    def body(self) -> dict[str, Any]:
        """The response's JSON."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": _TYPES.get(self.status, "server_error" if self.status >= 500 else "error"),
            "param": self.param,
            "code": self.code,
        }
        if self.raw_text is not None:
            error["raw_text"] = self.raw_text
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers."""
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def to_api_error(error: BaseException) -> ApiError:
    """The response to an exception. Internal errors become a 500 without details."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputTooLongError):
        return ApiError(413, "context_length_exceeded", str(error))
    if isinstance(error, OutputError):
        return ApiError(422, "invalid_output", str(error), raw_text=error.raw_text)
    if isinstance(error, ConstraintError):
        return ApiError(422, "constraint_failed", str(error))
    if isinstance(error, UsageError):
        return ApiError(400, "invalid_value", str(error))
    is_ours = isinstance(error, ArtifactError)  # clients need not know the file
    if isinstance(error, EdgeError) and error.exit_code == 2 and not is_ours:
        return ApiError(400, "unsupported", str(error))
    return ApiError(500, "internal_error", "internal error; see the service's log")


def deadline_error(seconds: float, *, retry_after: float = 1.0) -> ApiError:
    """The response to a request that was not answered within `seconds`."""
    return ApiError(
        503,
        "deadline_exceeded",
        f"the request was not answered within its deadline of {seconds:g} s",
        retry_after=retry_after,
    )
