"""Connections: too many of them, connections without a request, and what the log says of them."""

import asyncio
import errno
import json
import logging
import socket
import time
from contextlib import ExitStack, closing
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

import httpx
import websockets

from tests.serve.test_serve_realtime import plain
from tests.serving import HEARD, QUESTION, serving
from voxrill.runtime.errors import UsageError
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.log import OneOfAKind
from voxrill.runtime.serve.rates import network_of
from voxrill.runtime.serve.server import Address
from voxrill.runtime.serve.wyoming.addresses import bind

REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


def connect(server, source="127.0.0.1"):
    """A connection from a loopback address."""
    address = urlsplit(server.url)
    return closing(socket.create_connection((address.hostname, address.port), 10, (source, 0)))


def whole(opened):
    """Everything that the server sends until it closes the connection."""
    received = b""
    while piece := opened.recv(4096):
        received += piece
    return received


def is_answered(opened):
    opened.sendall(REQUEST)
    received = b""
    while not received.endswith(b"}"):
        received += opened.recv(4096)
    return received.startswith(b"HTTP/1.1 200")


LISTENING = {
    "HTTP": lambda port=0: Address("127.0.0.1", port).bind(),
    "Wyoming": lambda port=0: bind(f"tcp://127.0.0.1:{port}", anyone=False),
}


@pytest.mark.parametrize("listen", LISTENING.values(), ids=LISTENING)
@pytest.mark.parametrize("other", LISTENING.values(), ids=LISTENING)
def test_an_address_is_taken_before_the_model_is_loaded(listen, other):
    """Two servers that start at once: the second is refused at once, and not after it has loaded its model."""
    with closing(listen()) as first, pytest.raises(UsageError, match="cannot listen"):
        other(first.getsockname()[1])


@pytest.mark.parametrize("listen", LISTENING.values(), ids=LISTENING)
def test_small_packets_are_sent_at_once(listen):
    """Nagle's algorithm is off on every accepted connection: with it, an answer's last packet waits 40 ms."""

    async def accepted_option():
        option = asyncio.get_running_loop().create_future()

        async def accepted(_reader, writer):
            option.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        bound = listen()
        async with await asyncio.start_server(accepted, sock=bound):
            _, writer = await asyncio.open_connection(*bound.getsockname())
            writer.close()
            return await option

    assert asyncio.run(accepted_option())


def test_no_more_connections_than_allowed():
    """A refused connection is told why. Open ones go on, and when one is closed there is room for another."""
    with serving(Limits(connections=3)) as small:
        with ExitStack() as held:
            idle = [held.enter_context(connect(small)) for _ in range(3)]
            for one in idle:
                assert is_answered(one)
            refused = httpx.get(f"{small.url}/models")
            assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
            assert refused.json()["error"]["code"] == "too_many_connections"

            async def knock():
                async with plain(small):
                    pass

            with pytest.raises(websockets.InvalidStatus) as denied:
                asyncio.run(knock())
            assert json.loads(denied.value.response.body)["error"]["code"] == "too_many_connections"
            assert is_answered(idle[0])
        while httpx.get(f"{small.url}/models").status_code != 200:
            time.sleep(0.01)
        with small.client() as client:
            assert client.audio.transcriptions.create(model="pebble", file=QUESTION).text == HEARD
        assert small.metric("voxrill_shed_total") >= 2


def test_a_websocket_is_a_connection():
    with serving(Limits(connections=1)) as small:

        async def talk():
            async with plain(small), httpx.AsyncClient() as client:
                return (await client.get(f"{small.url}/models")).status_code

        assert asyncio.run(talk()) == 503


@pytest.mark.parametrize("sent", [b"", REQUEST[:20], REQUEST + REQUEST[:20]], ids=["nothing", "half", "one and a half"])
def test_a_connection_without_a_request_is_closed(sent):
    with serving(Limits(headers=0.2)) as impatient, connect(impatient) as opened:
        opened.sendall(sent)
        assert whole(opened).startswith(b"HTTP/1.1 200") == sent.startswith(REQUEST)


def test_a_refused_client_is_dropped_at_once():
    """It need not send anything. A refused connection that stayed open would use up the files of the process."""
    with serving(Limits(connections=1)) as small, connect(small) as first, connect(small) as second:
        assert b"too_many_connections" in whole(second)
        assert is_answered(first)


def test_one_address_does_not_lock_out_the_others(server):
    """While it holds all the connections that it can get, without a request, every other address is answered."""
    with ExitStack() as flood:
        for _ in range(150):
            flood.enter_context(connect(server, "127.0.0.2"))
        with connect(server, "127.0.0.2") as refused:
            assert b"too_many_connections" in whole(refused)
        for _ in range(25):
            with connect(server) as honest:
                assert is_answered(honest)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_an_ipv6_customer_is_one_address(address, network):
    """A customer has 2^64 IPv6 addresses."""
    assert network_of(address) == network


@pytest.fixture
def logged(monkeypatch):
    """A logger as the server bounds it: its lines, and a clock to set."""
    made, lines, clock = logging.Logger("test"), [], [0.0]
    monkeypatch.setattr("voxrill.runtime.serve.log.time", SimpleNamespace(monotonic=lambda: clock[0]))
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(logging.Formatter().format(record))
    made.addHandler(handler)
    made.addFilter(OneOfAKind())
    return made, lines, clock


def fail(logger, error, message="A step failed"):
    try:
        raise error
    except Exception as caught:
        logger.error(message, exc_info=caught)


def test_the_log_has_one_record_of_a_kind_in_a_minute(logged):
    """The next one says how many were left out; another error or message is another kind."""
    logger, lines, clock = logged
    for _ in range(1000):
        fail(logger, ValueError("one"))
    fail(logger, KeyError("two"))
    logger.warning("Invalid request from %s", "here")
    assert len(lines) == 3 and "Traceback" in lines[0]
    clock[0] = 61.0
    fail(logger, ValueError("one"))
    assert len(lines) == 4 and "999 more like this were left out" in lines[3]


def test_an_error_of_the_system_needs_no_traceback(logged):
    """asyncio adds lines that name a socket, which is another each time."""
    logger, lines, _ = logged
    for number in range(3):
        fail(logger, OSError(errno.EMFILE, "Too many open files"), f"accept() failed\nsocket: {number}")
    assert lines == ["accept() failed: [Errno 24] Too many open files"]
