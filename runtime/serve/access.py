"""Who has access, how much may be sent, and how long the server waits for a client.

These are checked before the body of a request is read:

- the host's name, because another site's page could rebind its name to this machine
- the origin, because other sites' pages have no access
- the key, which is compared in constant time; wrong keys are counted
- the rate

These are checked later: the body's size, the time in which it arrives, and the time for which a client leaves its
answer unread.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voxrill.runtime.serve import web_page
from voxrill.runtime.serve.api_errors import ApiError, response
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.rates import RateLimit
from voxrill.runtime.serve.request_log import record_of
from voxrill.runtime.serve.site import PATH

LOOPBACK = ("127.0.0.1", "localhost", "::1")

OPEN_PATHS = ("/health", "/docs", *web_page.PATHS)
"""Paths that need no key: whether the server works, how it is asked, and the page that asks its user for the key."""

FILE_PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations")
"""Paths whose body is a form with a file, which is not held in memory."""

KEY_PROTOCOL = "openai-insecure-api-key."
"""The subprotocol in which a browser sends the key: it cannot send a header with a WebSocket."""


@dataclass(frozen=True)
class Admission:
    """Who has access.

    key: every client must send it; None where only this machine can reach the server. hosts: names of the server that
    clients may use, empty for any. origins: sites whose pages have access, besides the server's own page.
    """

    key: str | None = None
    hosts: tuple[str, ...] = LOOPBACK
    origins: tuple[str, ...] = ()


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path == PATH or path.startswith(f"{PATH}/")


class AccessMiddleware:
    """Passes requests that have access to `app`, and refuses the others."""

    def __init__(self, app: ASGIApp, admission: Admission, limits: Limits) -> None:
        self._app = app
        self._admission = admission
        self._limits = limits
        self._requests = RateLimit(limits.rate)
        self._wrong_keys = RateLimit(limits.wrong_keys, "wrong keys")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        timed = _TimedSend(send, self._limits.stall)
        try:
            if scope["type"] == "websocket":
                self._check(scope)
                await self._app(scope, receive, timed)
            else:
                body = _LimitedBody(receive, scope, self._limits)
                timed.body = body
                self._check(scope)
                body.check_promise()
                await self._app(scope, body, timed)
        except ApiError as error:
            if timed.begun:
                raise
            record_of(scope).code = error.label
            await response(error)(scope, receive, timed)
        except Stalled:  # the server closes the connection, as the answer is not whole
            record_of(scope).code = "client_stalled"

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        address = (scope.get("client") or ("",))[0]
        self._check_site(headers)
        if self._admission.key is not None and not _is_open(scope["path"]):
            self._check_key(headers, self._admission.key, address)
        self._requests.check(address)

    def _check_site(self, headers: Headers) -> None:
        admission, host, origin = self._admission, headers.get("host", ""), headers.get("origin")
        if admission.hosts and _host_name(host) not in admission.hosts:
            raise ApiError(403, "This is not the name of the server. Use its address.", "wrong_host")
        if origin is not None and _site(origin) != host and origin not in admission.origins:
            raise ApiError(403, "This site has no access. Allow its pages with --origin.", "wrong_origin")

    def _check_key(self, headers: Headers, key: str, address: str) -> None:
        given = _given_key(headers)
        if given:
            # The right key is refused too, once there were too many wrong ones: otherwise guessing would go on.
            self._wrong_keys.require(address)
        if not hmac.compare_digest(given.encode(), key.encode()):
            if given:
                self._wrong_keys.count(address)
            raise ApiError(
                401,
                "The API key is missing or wrong. Send it as: Authorization: Bearer KEY",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _host_name(host: str) -> str:
    """A Host header without its port; empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _site(origin: str) -> str | None:
    """The host and port of an Origin header; None if it is malformed, as `http://[` is."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _given_key(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(KEY_PROTOCOL):
            return protocol.strip().removeprefix(KEY_PROTOCOL)
    return ""


class _LimitedBody:
    """Receives a body. It is refused when it is too large, or takes too long to arrive.

    whole: all of it was received, or there is none.
    """

    def __init__(self, receive: Receive, scope: Scope, limits: Limits) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._file = scope["path"] in FILE_PATHS
        self._most = limits.file if self._file else limits.body
        self._seconds = limits.file_upload if self._file else limits.upload
        self._until = time.monotonic() + self._seconds
        self._size = 0
        self._promised = headers.get("content-length", "0")
        self._whole = False  # before the last message was received, even that of an empty body
        self._empty = self._promised == "0" and "transfer-encoding" not in headers

    @property
    def whole(self) -> bool:
        """Whether nothing of it is left to receive."""
        return self._whole or self._empty

    def check_promise(self) -> None:
        """Raise ApiError if the header promises too much."""
        if not self._promised.isdecimal():
            raise ApiError(400, "Content-Length is not a number.", "invalid_length")
        if int(self._promised[:20]) > self._most:
            raise self._too_large()

    async def __call__(self) -> Message:
        """The next message: a part of the body; after the last part, that the client left."""
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, f"The body did not arrive within {self._seconds:g} seconds.", "timeout") from None
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise self._too_large()
        self._whole = not message.get("more_body", False)
        return message

    def _too_large(self) -> ApiError:
        larger = ", or start the server with a larger --max-upload-mb" * self._file
        message = f"The body is larger than {self._most} bytes. Compress the sound or split it{larger}."
        return ApiError(413, message, "body_too_large")


class Stalled(Exception):
    """A client does not read what it is sent."""


class _TimedSend:
    """Sends, and waits no longer than `seconds` for the client to read.

    begun: the answer has begun. body: of the request, once it is known.
    """

    def __init__(self, send: Send, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self.begun = False
        self.body: _LimitedBody | None = None

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer."""
        self.begun = True
        if message["type"] == "http.response.start" and self.body is not None and not self.body.whole:
            # Without it uvicorn would go on to read a refused body, however long it is.
            message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            raise Stalled from None
