"""Sockets on which the server listens."""

from __future__ import annotations

import socket


def tcp_socket(host: str) -> socket.socket:
    """A TCP socket for an address of `host`'s family. It is not bound yet.

    asyncio turns Nagle's algorithm off only where the socket names its protocol, and accepted connections inherit that
    name. With protocol 0 the last small packet of an answer waits for the client's delayed acknowledgement: 40 ms.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return opened


def listen(opened: socket.socket, address: tuple[str, int] | str) -> None:
    """Take an address and listen there. Clients that connect wait until the server accepts them.

    Binding alone is not enough: Linux lets several sockets with SO_REUSEADDR have one address until one of them
    listens. Two servers would then both load a model, and the second would fail only after that.

    Raises:
        OSError: the address is not one of this machine, or in use. The socket is closed.
    """
    try:
        opened.bind(address)
        opened.listen()
    except OSError:
        opened.close()
        raise
