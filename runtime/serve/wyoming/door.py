"""Where clients of the Wyoming protocol come in, and from where satellites are talked with.

Each connection has three sides: one reads, so that a client's leaving is noticed while another works for it; the last
watches how long it has nothing to say.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from wyoming.error import Error
from wyoming.event import Event

from voxrill.runtime.serve.api_errors import ApiError, as_api_error
from voxrill.runtime.serve.rates import RateLimit
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.wyoming.client import Client
from voxrill.runtime.serve.wyoming.following import follow
from voxrill.runtime.serve.wyoming.wire import EventStream

_AHEAD = 16
"""Events that are read before the one at hand is worked out."""

_LOOK = 1.0
"""Seconds between two looks at how long a client has been silent."""


@dataclass(frozen=True)
class Wyoming:
    """How the protocol is served.

    bound: the socket on which clients come in, or None. satellites: URIs of those that are talked with. say: is told
    what happens to them.
    """

    bound: socket.socket | None = None
    satellites: tuple[str, ...] = ()
    say: Callable[[str], None] = field(default=lambda _words: None)


class WyomingDoor:
    """The door. `clients` says how many are inside."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._rates = RateLimit(service.limits.rate)
        self.clients = 0

    @asynccontextmanager
    async def open(self, wyoming: Wyoming) -> AsyncIterator[None]:
        """Clients come in and satellites are talked with until the block ends."""
        links = [asyncio.ensure_future(follow(self._service, uri, wyoming.say)) for uri in wyoming.satellites]
        server = None
        if wyoming.bound is not None:
            listen = asyncio.start_unix_server if wyoming.bound.family == socket.AF_UNIX else asyncio.start_server
            server = await listen(self._come_in, sock=wyoming.bound)
        try:
            yield
        finally:
            for link in links:
                link.cancel()
            if server is not None:
                server.close()
            await asyncio.gather(*links, return_exceptions=True)

    async def _come_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limits = self._service.limits
        wire = EventStream(reader, writer, limits.message, limits.stall)
        address = str((writer.get_extra_info("peername") or ("",))[0])
        self.clients += 1
        try:
            with suppress(TimeoutError, ConnectionError):
                if self.clients > limits.connections:
                    await wire.write(Error("Too many are connected. Come back later.", "busy"))
                else:
                    await self._serve(wire, address)
        finally:
            self.clients -= 1
            wire.close()

    async def _serve(self, wire: EventStream, address: str) -> None:
        client = Client(self._service, wire.write, lambda: self._rates.check(address))
        events: asyncio.Queue[Event] = asyncio.Queue(_AHEAD)
        sides = {
            asyncio.ensure_future(_read(wire, events)),
            asyncio.ensure_future(_take(client, events)),
            asyncio.ensure_future(_watch(client)),
        }
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in done:
                side.result()
        except (TimeoutError, ConnectionError):
            raise  # nobody is left to be told
        except Exception as error:  # whatever it is, the others go on
            refused = as_api_error(error)
            if refused is not error:
                traceback.print_exception(error, file=sys.stderr)
            await wire.write(Error(refused.message, refused.code))
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            client.end()


async def _read(wire: EventStream, events: asyncio.Queue[Event]) -> None:
    """Read until the client leaves."""
    while event := await wire.read():
        await events.put(event)


async def _take(client: Client, events: asyncio.Queue[Event]) -> None:
    while True:
        await client.take(await events.get())


async def _watch(client: Client) -> None:
    """Wait until the client had nothing to say for too long."""
    while (left := client.patience) > 0:
        await asyncio.sleep(min(left, _LOOK))
    raise ApiError(408, "The next event did not come in time.", "timeout")
