"""The request log: one line a request, with method, path, status, time and seconds of sound. And its metrics.

A line never holds what was said, sent or answered, nor who asked. Of a refusal it has the code: the message may quote
the request.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voxrill.runtime.printable import printable
from voxrill.runtime.serve.log import LOG
from voxrill.runtime.serve.metrics import Metrics

REQUESTS = LOG.getChild("requests")

_FIELD = "voxrill.record"
"""Where a connection's scope has its record."""

_PATH = 200
"""Characters of a path that are logged."""

_POLLED = ("/health", "/metrics")
"""Paths that machines ask every few seconds: their lines are logged at the level debug, unless they fail."""

_FLOODS = (401, 403, 429, 503)
"""Refusals before any work. A flood of them does not fill the log: one of a kind is logged in a minute."""

LEFT = "client_left"


@dataclass
class Record:
    """What becomes known of a request while it is answered.

    heard, said: seconds of sound that came and went. code: why it failed. whole: all of the answer was sent.
    """

    heard: float = 0.0
    said: float = 0.0
    code: str = ""
    whole: bool = False


def record_of(scope: Scope) -> Record:
    """The record of a request."""
    record: Record = scope.setdefault(_FIELD, Record())
    return record


def log_request(method: str, path: str, status: int, seconds: float, record: Record) -> None:
    """Write the line of a request that ended."""
    fields: dict[str, str | int | float] = {"method": method, "path": path, "status": status}
    fields["ms"] = round(1000 * seconds, 1)
    line = f"{method} {path} {status} {1000 * seconds:.0f} ms"
    for name, sound in (("heard", record.heard), ("said", record.said)):
        if sound:
            fields[f"{name}_seconds"] = round(sound, 2)
            line += f", {name} {sound:.1f} s"
    if record.code:
        fields["code"] = record.code
        line += f", {record.code}"
    kind = (method, status, record.code) if status in _FLOODS else None
    REQUESTS.log(_level(path, status, record.code), "%s", line, extra={"fields": fields, "kind": kind})


def _level(path: str, status: int, code: str) -> int:
    if status >= 500:
        return logging.ERROR
    if status >= 400 or code not in ("", LEFT):
        return logging.WARNING
    return logging.DEBUG if path in _POLLED else logging.INFO


class RequestLog:
    """Counts and logs requests and WebSockets, refused ones included."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        started, watch = time.perf_counter(), _Watch(send, record_of(scope))
        try:
            await self._app(scope, receive, watch)
        except Exception:
            watch.failed()
            raise
        finally:
            seconds = time.perf_counter() - started
            status, is_request = watch.status(), scope["type"] == "http"
            if is_request:
                self._metrics.requests.labels(_route(scope), status).inc()
                self._metrics.seconds.observe(seconds)
            log_request(scope["method"] if is_request else "WEBSOCKET", _path(scope), status, seconds, watch.record)


class _Watch:
    """Sends, and sees which status was sent and whether the answer became whole."""

    def __init__(self, send: Send, record: Record) -> None:
        self.record = record
        self._send = send
        self._status = 0

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self._status = message["status"]
        elif kind == "websocket.accept":
            self._status, self.record.whole = 101, True
        elif kind == "websocket.close" and not self._status:
            self._status, self.record.whole = 403, True
        elif kind in ("http.response.body", "websocket.http.response.body"):
            self.record.whole = not message.get("more_body", False)
        await self._send(message)

    def failed(self) -> None:
        """The application failed. If nothing was sent yet, the framework answers in its place."""
        self.record.code = self.record.code or "server_error"
        self._status = self._status or 500

    def status(self) -> int:
        """The status that was sent; that of nginx for a client that left before."""
        if not self.record.whole and not self.record.code:
            self.record.code = LEFT
        return self._status or 499


def _path(scope: Scope) -> str:
    """The path without its query, as it was sent: in it every unusual character is percent-encoded."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode(errors="replace")
    return printable(raw.decode(errors="replace"))[:_PATH]


def _route(scope: Scope) -> str:
    """The path of the matching route. The client's own path must not be a label of metrics: each would be a new one."""
    for route in scope["app"].routes:
        if isinstance(route, Route) and route.matches(scope)[0] != Match.NONE:
            return route.path
    return "none"
