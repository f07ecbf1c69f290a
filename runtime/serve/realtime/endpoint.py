"""GET /v1/realtime: a WebSocket for each session.

The event loop only moves messages. Their content is worked out in a listening thread, one message of a session at a
time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from starlette.websockets import WebSocket, WebSocketDisconnect

from voxrill.runtime.serve.api_errors import ApiError, Busy, NoRoom, response
from voxrill.runtime.serve.realtime.messages import BETA, BETA_HEADER
from voxrill.runtime.serve.realtime.outbox import SLOW, Close, Outbox
from voxrill.runtime.serve.realtime.session import BEGINNING, RealtimeSession
from voxrill.runtime.serve.realtime.settings import Settings
from voxrill.runtime.serve.request_log import record_of
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.worker import POLL

PROTOCOL = "realtime"
"""The subprotocol that OpenAI's browser clients ask for."""

_TRANSCRIBE = "transcription"
"""The `intent` of a client that wants transcripts and no answers."""

_FULL_FOR = 10
"""Seconds after which a client is told to ask again when all sessions are taken."""

_IDLE = Close(1000, "idle")


class RealtimeEndpoint:
    """The route. `sessions` is how many are open."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.sessions = 0

    async def __call__(self, websocket: WebSocket) -> None:
        """One session, until either side ends it."""
        service = self._service
        try:
            service.check_model(websocket.query_params.get("model"))
            if self.sessions >= service.limits.sessions:
                service.metrics.shed.inc()
                raise Busy(_FULL_FOR, "All realtime sessions are taken")
            if service.states.full:
                raise NoRoom
        except ApiError as error:
            record_of(websocket.scope).code = error.label
            await websocket.send_denial_response(response(error))
            return
        self._count(1)
        try:
            offered = websocket.headers.get("sec-websocket-protocol", "").split(",")
            await websocket.accept(PROTOCOL if PROTOCOL in [name.strip() for name in offered] else None)
            await self._serve(websocket)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.sessions += change
        self._service.metrics.sessions.set(self.sessions)

    async def _serve(self, websocket: WebSocket) -> None:
        beta = BETA in [one.strip() for one in websocket.headers.get(BETA_HEADER, "").split(",")]
        settings = Settings(kind="transcription") if websocket.query_params.get("intent") == _TRANSCRIBE else BEGINNING
        link = await open_link(self._service, beta, settings)
        sides = {
            asyncio.ensure_future(_send(websocket, link.outbox)),
            asyncio.ensure_future(self._receive(websocket, link)),
        }
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in done:
                side.result()
        finally:
            link.session.leave()
            record_of(websocket.scope).heard = link.session.heard_seconds
            for side in sides:
                side.cancel()
        why = link.outbox.closed
        if why is not None:
            with suppress(WebSocketDisconnect, RuntimeError):  # the client has closed it already
                await websocket.close(why.code, why.reason)

    async def _receive(self, websocket: WebSocket, link: SessionLink) -> None:
        with suppress(WebSocketDisconnect):
            while link.outbox.closed is not SLOW:
                try:
                    async with asyncio.timeout(self._service.limits.idle):
                        message = await websocket.receive()
                except TimeoutError:
                    link.outbox.close(_IDLE)
                    return
                if message["type"] == "websocket.disconnect":
                    return
                raw = message.get("text")
                await link.send(message["bytes"] if raw is None else raw)


@dataclass(frozen=True)
class SessionLink:
    """A session that takes its turns at the worker, and the events that it sends."""

    session: RealtimeSession
    outbox: Outbox
    service: Service

    async def send(self, raw: str | bytes) -> None:
        """Hand over a message, once the session has worked off enough of those before."""
        while self.session.behind:  # meanwhile nothing is read, so that the client's system holds its messages back
            await asyncio.sleep(POLL)
        await self.service.process_sound(self.session.receive, raw)


async def open_link(service: Service, beta: bool = False, settings: Settings = BEGINNING) -> SessionLink:
    """Begin a session."""
    outbox = Outbox(service.limits.unread)
    session = await service.process_sound(RealtimeSession, service, beta, outbox, settings)
    service.worker.join(session)
    return SessionLink(session, outbox, service)


async def _send(websocket: WebSocket, outbox: Outbox) -> None:
    """Send events as they come, until the last."""
    with suppress(WebSocketDisconnect, RuntimeError):  # it is closed already
        while (event := await outbox.get()) is not None:
            await websocket.send_text(event.decode())
