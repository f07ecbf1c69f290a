"""Events of the Wyoming protocol as bytes, within limits; the package's own reader takes an event of any length.

A line of JSON (type, data, and how many bytes follow), then more data as JSON, then a payload.
Source: https://github.com/OHF-Voice/wyoming, "Format".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta
from wyoming.event import Event, Eventable, async_write_event

from voxrill.runtime.serve.api_errors import ApiError

Length = Annotated[int, Meta(ge=0)]
Data = TypeVar("Data", bound=msgspec.Struct)

_LINGER = 1.0
"""Seconds in which the other side may close after the last event."""

_PIECE = 64 << 10


class _Line(msgspec.Struct):
    type: str
    data: dict[str, Any] | None = None
    data_length: Length | None = None
    payload_length: Length | None = None


class PingData(msgspec.Struct):
    """The data of a ping. The text is sent back, so that its length is limited."""

    text: Annotated[str, Meta(max_length=1024)] | None = None


_LINES = msgspec.json.Decoder(_Line)
_MORE = msgspec.json.Decoder(dict[str, Any])


class EventStream:
    """One connection.

    Args:
        reader, writer: asyncio's; the reader limits a line to 64 KiB.
        most: bytes of an event after its line.
        stall: seconds for which the other side may leave unread what it was sent.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int, stall: float) -> None:
        self._reader = reader
        self._writer = writer
        self._most = most
        self._stall = stall
        self.last_size = 0
        """Bytes of the event that was read last."""

    async def read(self) -> Event | None:
        """The next event; None once the other side is gone.

        Raises:
            ApiError: these bytes are not an event, or it is too long: nothing after it can be read.
        """
        try:
            line = await self._reader.readline()
            if not line:
                return None
            head = _LINES.decode(line)
            data, payload = head.data_length or 0, head.payload_length or 0
            self.last_size = len(line) + data + payload
            if data + payload > self._most:
                raise ApiError(413, f"An event has {self._most} bytes at most. Send shorter chunks.", "too_large")
            more = _MORE.decode(await self._reader.readexactly(data)) if data else {}
            return Event(head.type, (head.data or {}) | more, await self._reader.readexactly(payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ApiError(400, f"This is not an event of the Wyoming protocol: {error}", "invalid_event") from None

    async def write(self, event: Eventable) -> None:
        """Send an event.

        Raises:
            TimeoutError, ConnectionError: nobody reads it.
        """
        try:
            async with asyncio.timeout(self._stall):
                await async_write_event(event.event(), self._writer)
        except TimeoutError:
            self._writer.transport.abort()  # closing would wait until all is read
            raise

    async def finish(self) -> None:
        """Nothing more is sent: let the other side read what was sent, and close.

        What it still sends is read and forgotten. If the connection were closed with unread bytes, the system would
        reset it, and the other side could lose the last event.
        """
        with suppress(OSError, TimeoutError, NotImplementedError):
            async with asyncio.timeout(_LINGER):
                self._writer.write_eof()
                while await self._reader.read(_PIECE):
                    pass

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


def data_of(event: Event, kind: type[Data]) -> Data:
    """The data of an event.

    Raises:
        ApiError: something is missing, or has another type.
    """
    try:
        return msgspec.convert(event.data, kind)
    except msgspec.ValidationError as error:
        raise ApiError(400, f"{event.type}: {error}", "invalid_event") from None
