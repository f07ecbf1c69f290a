"""At the door: who may come in, how much may be brought, and how long the server waits for a client.

Around every request and WebSocket: the host's name (a page elsewhere may not rebind a name to this machine), the origin
(no other site's page may ask), the key (compared in constant time), the rate, the body's size and the time it takes,
and the time for which a client may leave its answer unread.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voxrill.runtime.serve import web_page
from voxrill.runtime.serve.api_errors import ApiError, Busy, response
from voxrill.runtime.serve.limits import Limits

LOOPBACK = ("127.0.0.1", "localhost", "::1")

OPEN_PATHS = ("/health", *web_page.PATHS)
"""What needs no key: it says that the server works, or is the page that asks for the key; nothing else."""

KEY_PROTOCOL = "openai-insecure-api-key."
"""How a browser, which can send no header with a WebSocket, names the key among its subprotocols."""

_ADDRESSES = 4096
"""Addresses whose rate is remembered."""


@dataclass(frozen=True)
class Admission:
    """Who may come in.

    key: what everyone must know; None where only this machine can reach the server. hosts: names by which the server
    may be called, empty for any. origins: sites whose pages may ask, beside the server's own.
    """

    key: str | None = None
    hosts: tuple[str, ...] = LOOPBACK
    origins: tuple[str, ...] = ()


class Guard:
    """Lets through to `app` what may come in."""

    def __init__(self, app: ASGIApp, admission: Admission, limits: Limits) -> None:
        self._app = app
        self._admission = admission
        self._limits = limits
        self._rates = Rates(limits.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        send = _Patient(send, self._limits.stall)
        try:
            self._check(scope)
            if scope["type"] == "http":
                receive = _Measured(receive, Headers(scope=scope), self._limits)
            await self._app(scope, receive, send)
        except ApiError as error:
            if send.begun:
                raise
            await response(error)(scope, receive, send)
        except Stalled:
            return  # its connection is closed by the server, as the answer is not whole

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        admission = self._admission
        host = headers.get("host", "")
        if admission.hosts and _name(host) not in admission.hosts:
            raise ApiError(403, "This server is not called so. Use its own address.", "wrong_host")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host and origin not in admission.origins:
            raise ApiError(403, "Pages of other sites may not ask. Allow them with --origin.", "wrong_origin")
        if admission.key is not None and scope["path"] not in OPEN_PATHS:
            given = _given_key(headers)
            if not hmac.compare_digest(given.encode(), admission.key.encode()):
                raise ApiError(
                    401,
                    "The API key is missing or wrong. Send it as: Authorization: Bearer KEY",
                    "invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        self._rates.check((scope.get("client") or ("",))[0])


def _name(host: str) -> str:
    """A Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _given_key(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(KEY_PROTOCOL):
            return protocol.strip().removeprefix(KEY_PROTOCOL)
    return ""


class Rates:
    """How often each address may ask: a bucket that holds a minute's requests, and fills evenly."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Count a request.

        Raises:
            Busy: there were too many.
        """
        now = time.monotonic()
        left, at = self._buckets.pop(address, (float(self._rate), now))
        left = min(self._rate, left + (now - at) * self._rate / 60)
        if left < 1:
            self._buckets[address] = (left, now)
            raise Busy(max(1, round(60 / self._rate)), f"More than {self._rate} requests in a minute")
        self._buckets[address] = (left - 1, now)
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)


class _Measured:
    """A body that is refused when it is too large, or takes too long to come."""

    def __init__(self, receive: Receive, headers: Headers, limits: Limits) -> None:
        self._receive = receive
        self._limits = limits
        self._until = time.monotonic() + limits.upload
        self._size = 0
        self._whole = False
        promised = headers.get("content-length", "0")
        if not promised.isdecimal():
            raise ApiError(400, "Content-Length is no number.", "invalid_length")
        if int(promised[:20]) > limits.body:
            raise self._too_large()

    async def __call__(self) -> Message:
        if self._whole:  # what is waited for now is the client's leaving
            return await self._receive()
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, f"The body did not come within {self._limits.upload:g} seconds.", "timeout") from None
        self._size += len(message.get("body", b""))
        if self._size > self._limits.body:
            raise self._too_large()
        self._whole = not message.get("more_body", False)
        return message

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body is larger than {self._limits.body} bytes.", "body_too_large")


class Stalled(Exception):
    """A client does not read what it is sent."""


class _Patient:
    """Sends, but waits no longer than `seconds` for a client to read."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self.begun = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            raise Stalled from None
