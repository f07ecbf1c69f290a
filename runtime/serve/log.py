"""What the server writes to its log: lines of text or of JSON, and few of them when a flood makes the same mistake.

In: log records of uvicorn, asyncio and our own. Out: one record of a kind in a minute, where a record does not say that
all of its kind are written; the next one says how many were left out.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import time
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, datetime
from queue import Full, Queue
from threading import Thread
from typing import Any

LOG = logging.getLogger("voxrill.serve")
"""Mistakes of the server that no client is told."""

_EVERY = 60.0
"""Seconds between two records of one kind."""

_KINDS = 256
"""Kinds that are remembered."""

_WAITING = 10_000
"""Lines that wait until they are written."""

_LAST_SECONDS = 1.0
"""Seconds in which the last lines may be written at the end."""


class OneOfAKind(logging.Filter):
    """Lets the first record of a kind through in a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()  # when, and how many left out

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is the first of its kind for a minute, or one of those that are all written."""
        kind, now = getattr(record, "kind", _kind(record)), time.monotonic()
        if kind is None:
            return True
        at, left_out = self._seen.get(kind, (-_EVERY, 0))
        if now - at < _EVERY:
            self._seen[kind] = (at, left_out + 1)
            return False
        self._seen[kind] = (now, 0)
        if len(self._seen) > _KINDS:
            self._seen.popitem(last=False)
        _shorten(record, left_out)
        return True


def _kind(record: logging.LogRecord) -> tuple[object, ...]:
    """What makes two records the same: asyncio's further lines name a task or socket, which is another each time."""
    error = record.exc_info[1] if record.exc_info else None
    return record.name, str(record.msg).partition("\n")[0], type(error), getattr(error, "errno", None)


def _shorten(record: logging.LogRecord, left_out: int) -> None:
    """An error of the operating system needs no traceback, and a repeated record says how often it was repeated."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, OSError):
        record.msg, record.args, record.exc_info = f"{record.getMessage().partition(chr(10))[0]}: {error}", (), None
    if left_out:
        record.msg, record.args = f"{record.getMessage()} ({left_out} more like this were left out)", ()


_FILTER = OneOfAKind()

_UVICORN = "uvicorn.error"

_ENDED_EARLY = "ASGI callable returned"
"""How uvicorn begins to say that an answer was cut off."""


def bound_log() -> None:
    """Let one record of a kind through in a minute, from now on."""
    for name in (_UVICORN, "asyncio", LOG.name, f"{LOG.name}.requests"):
        logging.getLogger(name).addFilter(_FILTER)
    logging.getLogger(_UVICORN).addFilter(lambda record: not _cut_off(record))


def _cut_off(record: logging.LogRecord) -> bool:
    """Whether uvicorn says that an answer was cut off. The request log says it better, once."""
    error = record.exc_info[1] if record.exc_info else None
    return str(record.msg).startswith(_ENDED_EARLY) or isinstance(error, asyncio.CancelledError)


def set_up_log(level: str, as_json: bool, descriptor: int = 2) -> None:
    """Write the log to stderr, for a server that is a process of its own.

    Args:
        level: "debug", "info", "warning" or "error". Other libraries write warnings and errors only: at the level debug
            the WebSocket library would write what is said.
        as_json: one JSON object a line.
        descriptor: of the open file that is written to.
    """
    handler = _Writer(descriptor)
    handler.setFormatter(_AsJson() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    LOG.setLevel(level.upper())
    for name in (_UVICORN, "asyncio"):
        logging.getLogger(name).setLevel(max(LOG.level, logging.WARNING))


class _AsJson(logging.Formatter):
    """A record as one line of JSON: when, how grave, what happened, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Writer(logging.Handler):
    """Hands lines to a thread that writes them, so that the server never waits for a reader of its log.

    Lines are left out while `_WAITING` of them wait, and the next one says how many.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: Queue[str] = Queue(_WAITING)
        self._left_out = 0
        Thread(target=self._write, name="voxrill-log", daemon=True).start()
        atexit.register(self._end)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        try:
            line = self.format(record)
            if self._left_out:
                line = f"{line} ({self._left_out} lines before it were left out)"
            self._lines.put_nowait(line)
            self._left_out = 0
        except Full:
            self._left_out += 1

    def _write(self) -> None:
        # Not through sys.stderr: at the end its lock would be missing if this thread waited in it.
        while True:
            with suppress(OSError):  # nobody reads the log any more
                _write_all(self._descriptor, f"{self._lines.get()}\n".encode(errors="replace"))
            self._lines.task_done()

    def _end(self) -> None:
        """Wait for the last lines, but not for a reader that does not read."""
        until = time.monotonic() + _LAST_SECONDS
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
