"""The WebSocket connection of uvicorn, which bounds what a client leaves unread.

uvicorn answers a client's pings whether or not the client reads the answers, and waits for ever for a client that reads
nothing of what is left at the end. Here nothing more is read from such a client, and its connection is cut.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


def bounded_websocket(stall: float) -> type[WebSocketsSansIOProtocol]:
    """Uvicorn's protocol, with `stall` seconds in which a client must read what it was sent."""

    class BoundedWebSocket(WebSocketsSansIOProtocol):
        """One connection."""

        _timer: asyncio.TimerHandle | None = None

        def pause_writing(self) -> None:
            super().pause_writing()
            self._cut_later()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_timer()
            if not self.read_paused:  # uvicorn reads on by itself once its own queue is empty
                self.transport.resume_reading()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self.writable.is_set():
                self.transport.pause_reading()

        async def run_asgi(self) -> None:
            await super().run_asgi()
            if not self.disconnected:  # closing waits until the client has read all, for ever if it reads nothing
                self._cut_later()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _cut_later(self) -> None:
            self._stop_timer()
            self._timer = self.loop.call_later(stall, self.transport.abort)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return BoundedWebSocket
