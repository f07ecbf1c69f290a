"""Addresses of the Wyoming protocol: where to listen, and where a satellite is.

The protocol has no keys, so that everybody who can reach an address may use it. Only this machine or this user can,
unless the user allows others explicitly.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from voxrill.runtime.errors import UsageError
from voxrill.runtime.serve.access import LOOPBACK
from voxrill.runtime.serve.sockets import listen, tcp_socket

_FORMS = "Give tcp://ADDRESS:PORT or unix:///PATH"


def bind(uri: str, anyone: bool) -> socket.socket:
    """A socket for clients, which listens.

    Args:
        uri: tcp://ADDRESS:PORT, port 0 for any free one, or unix:///PATH.
        anyone: other machines may reach it.

    Raises:
        UsageError: the URI is malformed, its address cannot be used, or other machines could reach it unasked.
    """
    parts = split(uri)
    if parts.scheme == "unix":
        return _bind_file(Path(parts.path))
    host, port = parts.hostname or "", parts.port or 0
    if host not in LOOPBACK and not anyone:
        raise UsageError(
            f"other machines can reach {host}, and Wyoming has no keys",
            "Give --wyoming-anyone to allow everybody who can reach it, or an address that only this machine reaches",
        )
    return _bound(tcp_socket(host), (host, port), uri)


def split(uri: str) -> SplitResult:
    """The parts of a URI.

    Raises:
        UsageError: it is neither tcp://ADDRESS:PORT nor unix:///PATH.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{uri} is not an address ({error})", _FORMS) from None
    if not ((parts.scheme == "tcp" and parts.hostname and port is not None) or (parts.scheme == "unix" and parts.path)):
        raise UsageError(f"{uri} is not an address", _FORMS)
    return parts


def uri_of(bound: socket.socket) -> str:
    """The URI of a bound socket."""
    name = bound.getsockname()
    if isinstance(name, str):
        return f"unix://{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"tcp://{host}:{name[1]}"


def _bind_file(path: Path) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(OSError):
        if stat.S_ISSOCK(path.stat().st_mode) and opened.connect_ex(str(path)) != 0:
            path.unlink()  # it is left over from a server that was killed
            opened.close()
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o077)  # only this user may connect
    try:
        return _bound(opened, str(path), f"unix://{path}")
    finally:
        os.umask(mask)


def _bound(opened: socket.socket, address: tuple[str, int] | str, uri: str) -> socket.socket:
    try:
        listen(opened, address)
    except OSError as error:
        raise UsageError(f"cannot listen at {uri}: {error.strerror}", "Give another --wyoming") from None
    return opened


async def connect(uri: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to an address.

    Raises:
        OSError: nothing listens there.
    """
    parts = split(uri)
    if parts.scheme == "unix":
        return await asyncio.open_unix_connection(parts.path)
    return await asyncio.open_connection(parts.hostname, parts.port)
