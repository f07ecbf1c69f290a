"""Links to satellites. A satellite is looked for until it is there, and again when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.log import LOG
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.wyoming.addresses import connect
from voxrill.runtime.serve.wyoming.event_stream import EventStream
from voxrill.runtime.serve.wyoming.satellite import GONE, Satellite

RETRY = 5.0
"""Seconds after which a satellite that is not there is looked for again."""


async def keep_connected(service: Service, uri: str, say: Callable[[str], None]) -> None:
    """Talk with a satellite for ever: whenever it is lost, it is looked for again."""
    lost = False

    def met() -> None:
        nonlocal lost
        say(f"satellite {uri} is there")
        lost = False

    while True:
        try:
            async with asyncio.timeout(GONE):
                reader, writer = await connect(uri)
            stream = EventStream(reader, writer, service.limits.message, service.limits.stall)
            try:
                await Satellite(service, stream, met).talk()
            finally:
                stream.close()
        except (OSError, TimeoutError):
            pass
        except ApiError as error:
            say(f"satellite {uri}: {error.message}")
        except Exception as error:  # whatever it is, the other satellites go on
            LOG.error("the talk with a satellite failed", exc_info=error)
        if not lost:
            say(f"satellite {uri} is not there: looking for it every {RETRY:g} seconds")
        lost = True
        await asyncio.sleep(RETRY)
