"""GET /v1/realtime: a WebSocket for each session.

The event loop moves messages only: what they mean is worked out in an ear's thread, one message of a session at a time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from voxrill.runtime.serve.api_errors import ApiError, Busy, response
from voxrill.runtime.serve.realtime.messages import BETA, BETA_HEADER
from voxrill.runtime.serve.realtime.session import RealtimeSession
from voxrill.runtime.serve.service import Service

PROTOCOL = "realtime"
"""The subprotocol that OpenAI's browser clients ask for."""

_FULL_FOR = 10
"""Seconds after which to ask again when all sessions are taken."""

_CLOSED, _IDLE = 1011, 1000


class RealtimeDoor:
    """The door. `sessions` says how many are inside."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.sessions = 0

    async def __call__(self, websocket: WebSocket) -> None:
        """One session, until either side ends it."""
        service = self._service
        try:
            service.check_model(websocket.query_params.get("model", service.model.manifest.name))
            if self.sessions >= service.limits.sessions:
                service.metrics.shed.inc()
                raise Busy(_FULL_FOR, "All realtime sessions are taken")
        except ApiError as error:
            await websocket.send_denial_response(response(error))
            return
        self._count(1)
        try:
            offered = websocket.headers.get("sec-websocket-protocol", "").split(",")
            await websocket.accept(PROTOCOL if PROTOCOL in [name.strip() for name in offered] else None)
            await self._hold(websocket)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.sessions += change
        self._service.metrics.sessions.set(self.sessions)

    async def _hold(self, websocket: WebSocket) -> None:
        session, out = await open_session(self._service, beta=websocket.headers.get(BETA_HEADER) == BETA)
        sides = {asyncio.ensure_future(_send(websocket, out)), asyncio.ensure_future(self._receive(websocket, session))}
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in done:
                side.result()
        finally:
            session.leave()
            for side in sides:
                side.cancel()

    async def _receive(self, websocket: WebSocket, session: RealtimeSession) -> None:
        with suppress(WebSocketDisconnect):
            while True:
                try:
                    async with asyncio.timeout(self._service.limits.idle):
                        message = await websocket.receive()
                except TimeoutError:
                    await websocket.close(_IDLE, "idle")
                    return
                if message["type"] == "websocket.disconnect":
                    return
                raw = message.get("text")
                await self._service.hear(session.take, message["bytes"] if raw is None else raw)


async def open_session(service: Service, beta: bool = False) -> tuple[RealtimeSession, asyncio.Queue[bytes]]:
    """A session that takes its turns, and the events that it sends; an empty one is its last."""
    loop = asyncio.get_running_loop()
    out: asyncio.Queue[bytes] = asyncio.Queue()

    def send(event: bytes) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server ends
            loop.call_soon_threadsafe(out.put_nowait, event)

    session = await service.hear(RealtimeSession, service, beta, send)
    service.worker.join(session)
    return session, out


async def _send(websocket: WebSocket, out: asyncio.Queue[bytes]) -> None:
    """Send events as they come; an empty one ends the session."""
    with suppress(WebSocketDisconnect, RuntimeError):  # it is closed already
        while event := await out.get():
            await websocket.send_text(event.decode())
        await websocket.close(_CLOSED, "the server made a mistake")
