"""The server of the Wyoming protocol: its clients, and its links to satellites.

Each connection has three sides: one reads, so that the server notices when a client leaves while another side works for
it; the last one watches how long the client has sent nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from wyoming.error import Error
from wyoming.event import Event

from voxrill.runtime.serve.api_errors import ApiError, as_api_error
from voxrill.runtime.serve.log import LOG
from voxrill.runtime.serve.rates import RateLimit, network_of
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.wyoming.conversations import KeptConversations
from voxrill.runtime.serve.wyoming.event_stream import EventStream
from voxrill.runtime.serve.wyoming.handler import ClientHandler, Refused
from voxrill.runtime.serve.wyoming.satellite_links import keep_connected

_AHEAD = 64 << 10
"""Bytes of events that are read while the server works on an earlier one."""

_EVENT = 512
"""Bytes that count for each event beside its own: even an empty one takes memory."""

_LOOK = 1.0
"""Seconds between two looks at how long a client has sent nothing."""


@dataclass(frozen=True)
class Wyoming:
    """How the protocol is served.

    bound: the socket on which clients connect, or None. satellites: URIs of the satellites to talk with. say: is told
    what happens to them. least_confidence: see `Service`.
    """

    bound: socket.socket | None = None
    satellites: tuple[str, ...] = ()
    say: Callable[[str], None] = field(default=lambda _words: None)
    least_confidence: float | None = None


class WyomingServer:
    """Serves one model. `clients` says how many are connected, by where they come from."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._rates = RateLimit(service.limits.rate)
        self._conversations = KeptConversations(service)
        self.clients: Counter[str] = Counter()

    @asynccontextmanager
    async def open(self, wyoming: Wyoming) -> AsyncIterator[None]:
        """Serve clients and talk with satellites until the block ends."""
        links = [asyncio.ensure_future(keep_connected(self._service, uri, wyoming.say)) for uri in wyoming.satellites]
        server = None
        if wyoming.bound is not None:
            listen = asyncio.start_unix_server if wyoming.bound.family == socket.AF_UNIX else asyncio.start_server
            server = await listen(self._connected, sock=wyoming.bound)
        try:
            yield
        finally:
            for link in links:
                link.cancel()
            if server is not None:
                server.close()
            await asyncio.gather(*links, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limits = self._service.limits
        stream = EventStream(reader, writer, limits.message, limits.stall)
        address = str((writer.get_extra_info("peername") or ("",))[0])  # empty for a Unix socket
        network = network_of(address)
        self.clients[network] += 1
        try:
            with suppress(TimeoutError, OSError):
                if self._too_many(network):
                    self._service.metrics.shed.inc()
                    await stream.write(Error("Too many clients are connected. Try again later.", "busy"))
                else:
                    await self._serve(stream, address)
                    await stream.finish()
        finally:
            self.clients -= Counter([network])  # leaves out what becomes 0, so that it does not grow
            stream.close()

    def _too_many(self, network: str) -> bool:
        """Whether one client less should be connected. Who may use a Unix socket is one user, who may use all of it."""
        limits = self._service.limits
        of_network = self.clients[network] if network else 0
        return self.clients.total() > limits.connections or of_network > limits.address_connections

    async def _serve(self, stream: EventStream, address: str) -> None:
        client = ClientHandler(
            self._service, self._conversations, address, stream.write, lambda: self._rates.check(address)
        )
        ahead = _ReadAhead()  # one side reads into it, so that it sees the connection end while another side works
        sides = {
            asyncio.ensure_future(_read(stream, ahead)),
            asyncio.ensure_future(_take(client, ahead)),
            asyncio.ensure_future(_watch(client)),
        }
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in done:
                side.result()
        except (Refused, TimeoutError, OSError):
            return  # the client was told, or is not there to be told
        except Exception as error:  # whatever it is, the other clients go on
            refusal = as_api_error(error)
            if refusal is not error:
                LOG.error("a Wyoming client could not be served", exc_info=error)
            await stream.write(Error(refusal.message, refusal.code))
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            client.end()


class _ReadAhead:
    """Events that wait until the one before is worked on, bounded by their bytes."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[tuple[Event, int]] = asyncio.Queue()
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, event: Event, size: int) -> None:
        """Add an event; wait until there is room for another one."""
        self._bytes += size + _EVENT
        self._events.put_nowait((event, size + _EVENT))
        if self._bytes > _AHEAD:
            self._room.clear()
        await self._room.wait()

    async def get(self) -> Event:
        """The next event."""
        event, size = await self._events.get()
        self._bytes -= size
        if self._bytes <= _AHEAD:
            self._room.set()
        return event


async def _read(stream: EventStream, ahead: _ReadAhead) -> None:
    """Read until the client leaves."""
    while event := await stream.read():
        await ahead.put(event, stream.last_size)


async def _take(client: ClientHandler, ahead: _ReadAhead) -> None:
    while True:
        await client.take(await ahead.get())


async def _watch(client: ClientHandler) -> None:
    """Wait until the client has sent nothing for too long."""
    while (left := client.patience) > 0:
        await asyncio.sleep(min(left, _LOOK))
    raise ApiError(408, "The next event did not come in time.", "timeout")
