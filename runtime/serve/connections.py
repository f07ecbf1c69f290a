"""How many connections are open, and how long one may be open without a request: before any of it reaches the guard.

In: uvicorn's protocol. Out: the same, which refuses what is too many with 503, WebSockets as well, and closes
connections on which no request comes.
"""

from __future__ import annotations

import asyncio
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from voxrill.runtime.serve.api_errors import ApiError, response
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.metrics import Metrics

_AGAIN = 5
"""Seconds after which to try again: unused connections are closed by then."""

_LINGER = 1.0
"""Seconds in which a client that is refused may send its request, so that it reads why."""


def limited(limits: Limits, metrics: Metrics) -> type[H11Protocol]:
    """Uvicorn's protocol, within the limits `connections` and `upload`."""

    class Limited(H11Protocol):
        """One connection."""

        _refused = False
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            opened = cast(asyncio.Transport, transport)
            super().connection_made(opened)
            if len(self.connections) > limits.connections:
                metrics.shed.inc()
                self._refused = True
                self.connections.discard(self)
            self._wait(_LINGER if self._refused else limits.upload)

        def data_received(self, data: bytes) -> None:
            if self._refused:
                self.transport.write(_REFUSAL)
                self.transport.close()
                return
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_waiting()
            elif self._timer is None:
                self._wait(limits.upload)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self, seconds: float) -> None:
            self._timer = self.loop.call_later(seconds, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Limited


def _refusal() -> bytes:
    error = ApiError(
        503,
        f"The server has as many connections as it can hold. Try again in {_AGAIN} seconds.",
        "too_many_connections",
        kind="server_error",
    )
    answer = response(error)
    headers = [*answer.raw_headers, (b"retry-after", str(_AGAIN).encode()), (b"connection", b"close")]
    head = b"HTTP/1.1 503 Service Unavailable\r\n" + b"".join(b"%b: %b\r\n" % header for header in headers)
    return head + b"\r\n" + bytes(answer.body)


_REFUSAL = _refusal()
