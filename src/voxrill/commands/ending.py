"""How a command ends that is not let finish: by a signal, without a stdout, or behind a reader that has left.

SIGTERM (a service is stopped) and SIGHUP (the terminal is closed) end a command like Ctrl-C: what it holds is given
back and hidden files are removed. Then the process dies of the signal itself, which a shell reports as 128 + its number
and a service manager takes for an orderly end.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO, cast

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Windows has no SIGHUP."""

_LATER = 0.05
"""Seconds after which a signal is answered that came while a module was imported."""

_BY_SIGNAL = 128
"""What a shell adds to a signal's number."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """In the block, the signals that end a process raise KeyboardInterrupt; after it, the process dies of the signal.

    A signal that is ignored stays so, as SIGHUP is under nohup. A second SIGTERM ends the process at once; a closed
    terminal sends SIGHUP more than once, so that the second one changes nothing. Ctrl-C raises KeyboardInterrupt as
    ever, and the process does not die of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may listen to signals
        return
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            _send_later(number)
            return
        if number != signal.SIGINT:
            received.append(number)
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *_SIGNALS)}
    listened = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    for number in listened:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in listened:
            signal.signal(number, before[number])
        if received:
            _die_of(received[0])


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported. Some swallow exceptions then: those of Cython do, numpy's among them."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _send_later(number: int) -> None:
    """Send this process the signal again, to the main thread: one that waits in the system is to wake up."""
    main = threading.main_thread().ident
    assert main is not None, "the main thread has begun"
    if hasattr(signal, "pthread_kill"):
        again = threading.Timer(_LATER, signal.pthread_kill, (main, number))
    else:  # Windows
        again = threading.Timer(_LATER, signal.raise_signal, (number,))
    again.daemon = True
    again.start()


def _die_of(number: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os.kill(os.getpid(), number)
    sys.exit(_BY_SIGNAL + number)  # the first process of a container is not killed by its own signal


def open_standard_streams() -> None:
    """Give the process the streams for output that it was started without, as by `>&-`.

    stderr goes nowhere then. Writing to stdout is an error, since data would be lost; a command that writes none works.
    Python's `sys.stdin` stays None. The numbers 0 to 2 are taken: or else the next file that is opened would get one of
    them, and what some library prints would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if cast("Any", sys.stdout) is None:
        sys.stdout = _closed_stdout()
    if cast("Any", sys.stderr) is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


class ClosedOutput(io.RawIOBase):
    """What stands for a stdout that is closed."""

    def writable(self) -> bool:
        """It is a stream to write to, in principle."""
        return True

    def write(self, _data: object) -> int:
        """Refuse.

        Raises:
            OSError: always.
        """
        raise OSError(errno.EBADF, "stdout is closed")


def _closed_stdout() -> TextIO:
    return io.TextIOWrapper(cast("Any", ClosedOutput()), encoding="utf-8", write_through=True)


def forget_stdout() -> None:
    """Drop what stdout holds back, if it cannot be written: Python would try again at its end, and complain."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # a stdout in memory has no number
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
