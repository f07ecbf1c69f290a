"""A program under test: a process that talks on a wire, and writes a line of JSON to stdout about every turn.

In: its command. Out: whether it is ready, and then what it wrote about each turn.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from benchmarks.talk.sound_server import SoundServer, SoundWire, end
from voxrill.runtime.errors import VoxrillError

_READY_SECONDS = 120.0
"""Seconds until it must be ready: a large model takes long to load."""

TELL_SECONDS = 2.0
"""Seconds from the end of an answer to the line about it."""


class Subject:
    """A program that listens and answers on `wire`, for a `with` block.

    Args:
        name: what it is called in the results.
        command: the arguments of this Python.
        server: what `wire` belongs to.
        wire: its devices.
    """

    def __init__(self, name: str, command: Sequence[str], server: SoundServer, wire: SoundWire) -> None:
        self.name, self.wire = name, wire
        self._command, self._server = [sys.executable, *command], server
        self._lines: SimpleQueue[dict[str, Any]] = SimpleQueue()

    def __enter__(self) -> Self:
        """Start it, and wait until it listens.

        Raises:
            VoxrillError: it ended; the message has its last words.
        """
        self._errors = tempfile.TemporaryFile()
        environment = {**os.environ, **self.wire.program}
        others = self._server.listeners(self.wire)
        self._process = subprocess.Popen(
            self._command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        assert self._process.stdin is not None
        self._keyboard = self._process.stdin
        self._thread = Thread(target=self._follow, args=(self._process.stdout,), daemon=True)
        self._thread.start()
        try:
            self._await(others)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._process)
        with suppress(BrokenPipeError):
            self._keyboard.close()
        self._thread.join()
        self._errors.close()

    def told(self, timeout: float = TELL_SECONDS) -> dict[str, Any]:
        """What it writes about its next turn; empty if nothing comes within `timeout` seconds."""
        try:
            return self._lines.get(timeout=timeout)
        except Empty:
            return {}

    def press(self) -> None:
        """Press Enter."""
        self._keyboard.write(b"\n")
        self._keyboard.flush()

    def check(self) -> None:
        """Raise a VoxrillError if it has ended."""
        if self._process.poll() is not None:
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip().splitlines()
            raise VoxrillError(f"{self.name} ended: {words[-1] if words else 'it printed nothing'}")

    def _await(self, others: int) -> None:
        until = time.monotonic() + _READY_SECONDS
        while self._server.listeners(self.wire) <= others:
            self.check()
            if time.monotonic() > until:
                raise VoxrillError(f"{self.name} is not ready after {_READY_SECONDS:.0f} s")
            time.sleep(0.1)

    def _follow(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._lines.put(msgspec.json.decode(line))
