"""How many connections are open, and how long a connection may stay without a request: before any access is checked.

In: uvicorn's protocol. Out: the same protocol. It refuses with 503 what is too many, WebSockets included, and closes
connections on which no request comes.
"""

from __future__ import annotations

import asyncio
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from voxrill.runtime.serve.api_errors import ApiError, response
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.log import LOG
from voxrill.runtime.serve.metrics import Metrics
from voxrill.runtime.serve.rates import network_of

BACKLOG = 128
"""Connections that the kernel holds until they are accepted, and that asyncio accepts in one go.

uvicorn's default of 2048 in one go is more than the 1024 files that a process may usually open.
"""

_AGAIN = 5
"""Seconds after which to try again: unused connections are closed by then."""


def limited(limits: Limits, metrics: Metrics) -> type[H11Protocol]:
    """Uvicorn's protocol, within the limits `connections`, `address_connections` and `headers`."""

    class Limited(H11Protocol):
        """One connection."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            opened = cast(asyncio.Transport, transport)
            super().connection_made(opened)
            if self._is_too_many():
                metrics.shed.inc()
                LOG.warning("Connections are refused: there are %d, as many as may be open", len(self.connections))
                self.connections.discard(self)
                opened.write(_REFUSAL)
                opened.close()  # at once: a refused connection that stayed open would still use a file
            else:
                self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_waiting()
            elif self._timer is None:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _is_too_many(self) -> bool:
            network = _network(self)
            of_address = sum(_network(one) == network for one in self.connections)  # this one included
            return len(self.connections) > limits.connections or of_address > limits.address_connections

        def _wait(self) -> None:
            self._timer = self.loop.call_later(limits.headers, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Limited


def _network(connection: object) -> str:
    """Where a connection comes from: every protocol of uvicorn's has its client's address, or None."""
    client = getattr(connection, "client", None)
    return network_of(client[0]) if client else ""


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
