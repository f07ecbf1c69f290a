"""The server as a process: its socket, uvicorn, its log, and a clean end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from voxrill.runtime.audio.end_of_turn import PauseJudge
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import UsageError
from voxrill.runtime.serve.access import Admission
from voxrill.runtime.serve.app import make_app
from voxrill.runtime.serve.connections import BACKLOG, limited
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.log import bound_log
from voxrill.runtime.serve.realtime.websocket import bounded_websocket
from voxrill.runtime.serve.sockets import listen, tcp_socket
from voxrill.runtime.serve.wyoming.server import Wyoming

_GRACE = 3
"""Seconds in which open answers may end after the server was told to end."""


@dataclass(frozen=True)
class Address:
    """Where to listen. Port 0 is any free port."""

    host: str
    port: int

    def bind(self) -> socket.socket:
        """A socket with this address, which listens.

        Raises:
            UsageError: the address is not one of this machine, or in use.
        """
        opened = tcp_socket(self.host)
        try:
            listen(opened, (self.host, self.port))
        except OSError as error:
            raise UsageError(
                f"cannot listen at {self.host}, port {self.port}: {error.strerror}", "Give another --host or --port"
            ) from None
        return opened

    def url(self, bound: socket.socket) -> str:
        """The URL of the interface: OpenAI's clients call it `base_url`."""
        return f"{self.page(bound)}v1"

    def page(self, bound: socket.socket) -> str:
        """The URL of the page for browsers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{bound.getsockname()[1]}/"


class _Server(uvicorn.Server):
    """uvicorn, which says when it is ready, and ends as cleanly when its terminal is closed as at Ctrl-C."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """A second Ctrl-C cuts off the open answers. The application ends in order all the same."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Catch SIGHUP as well, unless it is ignored: under nohup the server goes on."""
        with super().capture_signals():
            before = signal.getsignal(signal.SIGHUP) if hasattr(signal, "SIGHUP") else signal.SIG_IGN
            if before == signal.SIG_IGN:
                yield
                return
            signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                # uvicorn raises the signals that it caught once more, to the handlers that were there before.
                signal.signal(signal.SIGHUP, before)


def config(
    model: Engine,
    limits: Limits,
    admission: Admission,
    wyoming: Wyoming,
    judge: PauseJudge | None = None,
    site: Path | None = None,
) -> uvicorn.Config:
    """Uvicorn's configuration."""
    app = make_app(model, limits, admission, wyoming, judge, site)
    return uvicorn.Config(
        app,
        http=limited(limits, app.state.service.metrics),
        ws=bounded_websocket(limits.stall),
        backlog=BACKLOG,
        ws_max_size=limits.websocket_message,
        ws_per_message_deflate=False,  # sound does not shrink, and a small message could expand into a large one
        log_config=None,  # `set_up_log` says where the log goes
        access_log=False,
        server_header=False,
        proxy_headers=False,  # or a client could pretend to have another address
        timeout_graceful_shutdown=_GRACE,
    )


def run(
    model: Engine,
    bound: socket.socket,
    limits: Limits,
    admission: Admission,
    wyoming: Wyoming,
    ready: Callable[[], None],
    judge: PauseJudge | None = None,
    site: Path | None = None,
) -> None:
    """Serve until Ctrl-C.

    Args:
        model: nobody else may use it meanwhile.
        bound: the socket to listen on.
        limits: see `Limits`.
        admission: who has access.
        wyoming: where clients of that protocol connect, and which satellites the server talks with.
        ready: called as soon as the server answers.
        judge: see `Service`.
        site: the folder of a site for browsers that run the model themselves.
    """
    server = _Server(config(model, limits, admission, wyoming, judge, site), ready)
    bound_log()  # after uvicorn has configured its loggers
    with suppress(KeyboardInterrupt):  # uvicorn ends cleanly, and raises it then
        server.run([bound])
