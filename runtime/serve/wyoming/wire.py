"""Events of the Wyoming protocol as bytes, within limits; the package's own reader takes any length it is told.

A line of JSON (type, data, and how many bytes follow), then more data as JSON, then a payload.
Source: https://github.com/OHF-Voice/wyoming, "Format".
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta
from wyoming.event import Event, Eventable, async_write_event

from voxrill.runtime.serve.api_errors import ApiError

Length = Annotated[int, Meta(ge=0)]
Data = TypeVar("Data", bound=msgspec.Struct)


class _Line(msgspec.Struct):
    type: str
    data: dict[str, Any] | None = None
    data_length: Length | None = None
    payload_length: Length | None = None


_LINES = msgspec.json.Decoder(_Line)
_MORE = msgspec.json.Decoder(dict[str, Any])


class EventStream:
    """One connection.

    Args:
        reader, writer: asyncio's, the former with its own limit of a line (64 KiB).
        most: bytes of an event after its line.
        stall: seconds that the other side may leave what it was sent unread.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int, stall: float) -> None:
        self._reader = reader
        self._writer = writer
        self._most = most
        self._stall = stall

    async def read(self) -> Event | None:
        """The next event; None once the other side is gone.

        Raises:
            ApiError: this is none, or too long: nothing after it can be read.
        """
        try:
            line = await self._reader.readline()
            if not line:
                return None
            head = _LINES.decode(line)
            data, payload = head.data_length or 0, head.payload_length or 0
            if data + payload > self._most:
                raise ApiError(413, f"An event has {self._most} bytes at most. Send shorter chunks.", "too_large")
            more = _MORE.decode(await self._reader.readexactly(data)) if data else {}
            return Event(head.type, (head.data or {}) | more, await self._reader.readexactly(payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ApiError(400, f"This is no event of Wyoming's: {error}", "invalid_event") from None

    async def write(self, event: Eventable) -> None:
        """Send an event.

        Raises:
            TimeoutError, ConnectionError: nobody reads it.
        """
        try:
            async with asyncio.timeout(self._stall):
                await async_write_event(event.event(), self._writer)
        except TimeoutError:
            self._writer.transport.abort()  # to close it would wait until all is read
            raise

    def close(self) -> None:
        """Say no more."""
        self._writer.close()


def data_of(event: Event, kind: type[Data]) -> Data:
    """What an event says.

    Raises:
        ApiError: something is missing, or of another type.
    """
    try:
        return msgspec.convert(event.data, kind)
    except msgspec.ValidationError as error:
        raise ApiError(400, f"{event.type}: {error}", "invalid_event") from None
