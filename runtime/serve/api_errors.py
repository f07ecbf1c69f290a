"""Every refusal in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`, with its HTTP status.

In: errors of ours and of the framework. Out: responses. What a user can mend says how. An unforeseen error tells the
client only that it happened; the log has the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from voxrill.runtime.errors import AudioFileError, ContextFull, DataError, UnknownText, UsageError, VoxrillError
from voxrill.runtime.serve.request_log import record_of

INVALID = "invalid_request_error"

_BEGIN, _END = 700, 300
"""Characters that are kept of a message: some quote what the client sent. The remedy is at the end."""


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        message: what is wrong, and what to do. The middle of a long one is left out.
        code: for machines.
        param: the part of the request that is wrong.
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
        if len(message) > _BEGIN + _END:
            message = f"{message[:_BEGIN]} ... {message[-_END:]}"
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.kind = status, message, code, param, kind
        self.headers = dict(headers or {})

    @property
    def label(self) -> str:
        """What the request log says of it: nothing that a client sent."""
        return self.code or (self.kind if self.kind != INVALID else "")

    def body(self) -> dict[str, Any]:
        """What is wrong, in OpenAI's shape."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}


class Busy(ApiError):
    """The server has more to do than it can; a client may ask again after `seconds`."""

    def __init__(self, seconds: int, message: str = "The server has as much to do as it can hold") -> None:
        super().__init__(
            429,
            f"{message}. Ask again in {seconds} seconds.",
            "rate_limit_exceeded",
            kind="rate_limit_error",
            headers={"Retry-After": str(seconds)},
        )


class NoRoom(ApiError):
    """The disk is full or read-only, so that what was asked for cannot be kept."""

    def __init__(self) -> None:
        super().__init__(
            507,
            "The server's disk is full or read-only. Give its temporary folder (TMPDIR) room, or ask again later.",
            "insufficient_storage",
            kind="server_error",
        )


def as_api_error(error: Exception) -> ApiError:
    """Any error as one of the interface; 500 for an unforeseen one."""
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


async def refuse(connection: HTTPConnection, error: Exception) -> Response:
    """As Starlette's exception handlers want it."""
    refusal = as_api_error(error)
    record_of(connection.scope).code = refusal.label
    return response(refusal)
