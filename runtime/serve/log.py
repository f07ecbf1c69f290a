"""What the server writes to its log, when a flood of requests or connections makes the same mistake again and again.

In: log records of uvicorn, asyncio and our own. Out: one record of a kind in a minute; the next one says how many were
left out.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

LOG = logging.getLogger("voxrill.serve")
"""Mistakes of the server that no client is told."""

_EVERY = 60.0
"""Seconds between two records of one kind."""

_KINDS = 256
"""Kinds that are remembered."""


class OneOfAKind(logging.Filter):
    """Lets the first record of a kind through in a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()  # when, and how many left out

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is the first of its kind for a minute."""
        kind, now = _kind(record), time.monotonic()
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


def bound_log() -> None:
    """Let one record of a kind through in a minute, from now on."""
    for name in ("uvicorn.error", "asyncio", LOG.name):
        logging.getLogger(name).addFilter(_FILTER)
