"""Every refusal in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`, with its HTTP status.

In: errors of ours and of the framework. Out: responses. What a user can mend says how; what nobody foresaw says no
more than that it happened, and is printed on stderr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from voxrill.runtime.errors import AudioFileError, ContextFull, DataError, UnknownText, UsageError, VoxrillError

INVALID = "invalid_request_error"

_LONGEST = 1000
"""Characters of a message: some quote what the client sent."""


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        message: what is wrong, and what to do.
        code: for machines.
        param: which part of the request it is about.
        kind: OpenAI's type of error.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        kind: str = INVALID,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if len(message) > _LONGEST:
            message = f"{message[:_LONGEST]} ..."
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.kind = status, message, code, param, kind
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """What is wrong, in OpenAI's shape."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}


class Busy(ApiError):
    """More than the server can do now; it may be asked again after so many seconds."""

    def __init__(self, seconds: int, message: str = "The server has as much to do as it can hold") -> None:
        super().__init__(
            429,
            f"{message}. Ask again in {seconds} seconds.",
            "rate_limit_exceeded",
            kind="rate_limit_error",
            headers={"Retry-After": str(seconds)},
        )


def as_api_error(error: Exception) -> ApiError:
    """Any error as one of the interface; 500 for those that nobody foresaw."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, ContextFull):
        return ApiError(400, str(error), "context_length_exceeded")
    if isinstance(error, AudioFileError):
        return ApiError(400, str(error), "invalid_audio")
    if isinstance(error, UsageError | UnknownText | DataError):
        return ApiError(400, str(error))
    if isinstance(error, VoxrillError):
        return ApiError(503, str(error), kind="server_error")
    return ApiError(500, "The server made a mistake; its log says which.", kind="server_error")


def response(error: ApiError) -> Response:
    """The response that refuses."""
    body = msgspec.json.encode({"error": error.body()})
    return Response(body, error.status, error.headers, "application/json")


async def refuse(_connection: HTTPConnection, error: Exception) -> Response:
    """As Starlette's exception handlers want it."""
    return response(as_api_error(error))
