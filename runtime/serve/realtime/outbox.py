"""Events on their way to one client: any thread puts them in, the event loop takes them out in order.

The bytes that wait are bounded. A client that reads too slowly is let go, so that it cannot fill the server's memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True)
class Close:
    """Why a session ends. code: of WebSocket."""

    code: int
    reason: str


SLOW = Close(1008, "the client reads too slowly: too many bytes wait for it")
FAILED = Close(1011, "the server made a mistake")


class Outbox:
    """One client's events. Made in the event loop.

    Args:
        most: bytes that may wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._lock = Lock()
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self.closed: Close | None = None

    @property
    def full(self) -> bool:
        """Whether so much waits that nothing more should be made for this client: half of what may wait."""
        return self._bytes > self._most // 2

    def put(self, event: bytes) -> None:
        """Add an event, from any thread. What comes after the end is dropped."""
        with self._lock:
            if self.closed is not None:
                return
            if self._bytes + len(event) > self._most:
                self._empty()
                self._close(SLOW)
                return
            first = not self._events
            self._events.append(event)
            self._bytes += len(event)
            if first:  # the loop is woken once for all events that wait, so that its own queue stays short
                self._wake()

    def close(self, why: Close) -> None:
        """End after what waits. May be called from any thread."""
        with self._lock:
            if self.closed is None:
                self._close(why)

    def drop(self) -> None:
        """The client is gone: forget what waits."""
        with self._lock:
            self._empty()

    async def get(self) -> bytes | None:
        """The next event; None after the last one, when `closed` says why. The event loop's side."""
        while True:
            with self._lock:
                if self._events:
                    event = self._events.popleft()
                    self._bytes -= len(event)
                    return event
                if self.closed is not None:
                    return None
                self._ready.clear()
            await self._ready.wait()

    def _close(self, why: Close) -> None:
        self.closed = why
        self._wake()

    def _empty(self) -> None:
        self._events.clear()
        self._bytes = 0

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server ends
            self._loop.call_soon_threadsafe(self._ready.set)
