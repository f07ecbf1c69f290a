"""The memory of conversations: a cache with a budget. The least recently used states beyond it are moved to disk.

In: contexts about to be worked on. Out: their state in memory. A state on disk is a file without a name in the system's
temporary folder, so that nothing of it is left, however the server ends. Where that folder is full, states stay in
memory: conversations that have begun go on, and `full` says that no new one should begin. All of it belongs to the
worker's thread; only `full` is read by others.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from voxrill.runtime.engine.context import Context
from voxrill.runtime.serve.log import LOG
from voxrill.runtime.serve.metrics import Metrics

_RETRY = 10.0
"""Seconds after which a full disk is tried again: each try may write a whole state in vain."""


@dataclass(frozen=True)
class _Stored:
    """A state on disk: its file, and the shapes and types of its tensors in the order in which they lie there."""

    file: IO[bytes]
    tensors: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


class StateCache:
    """Keeps the states of all conversations within `budget` bytes of memory. The one in use may be larger by itself."""

    def __init__(self, budget: int, metrics: Metrics) -> None:
        self._budget = budget
        self._metrics = metrics
        self._held: OrderedDict[Context, None] = OrderedDict()
        self._stored: dict[Context, _Stored] = {}
        self._next_try = -math.inf  # when the disk may be used, after it was full
        self.full = False

    def use(self, context: Context) -> None:
        """Have `context` in memory as the most recently used one. Others go to disk for it."""
        stored = self._stored.pop(context, None)
        if stored is not None:
            _read(context, stored)
        self._held[context] = None
        self._held.move_to_end(context)
        self._fit()

    def drop(self, context: Context) -> None:
        """Free the state of `context`, which will not be used again."""
        self._held.pop(context, None)
        stored = self._stored.pop(context, None)
        if stored is not None:
            stored.file.close()
        total = self._bytes()
        self.full = self.full and self._is_over(total)
        self._tell(total)

    def close(self) -> None:
        """Free all states."""
        for context in [*self._held, *self._stored]:
            self.drop(context)

    def _fit(self) -> None:
        total = self._bytes()
        while self._is_over(total) and time.monotonic() >= self._next_try:
            oldest = next(iter(self._held))
            size = oldest.nbytes
            try:
                self._stored[oldest] = _write(oldest)
            except OSError as error:
                LOG.warning("Conversations take more memory than they may: none can be moved to disk (%s)", error)
                self._next_try = time.monotonic() + _RETRY
                break
            del self._held[oldest]
            total -= size
            self._metrics.evictions.inc()
        self.full = self._is_over(total)
        self._tell(total)

    def _is_over(self, total: int) -> bool:
        """Whether states must leave the memory; the one in use never does."""
        return total > self._budget and len(self._held) > 1

    def _bytes(self) -> int:
        return sum(context.nbytes for context in self._held)

    def _tell(self, held: int) -> None:
        self._metrics.state_bytes.set(held)
        self._metrics.parked.set(len(self._stored))


def _write(context: Context) -> _Stored:
    file = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed when the state is read or dropped)
    content = context.content()
    try:
        for tensor in content.values():
            file.write(np.ascontiguousarray(tensor).tobytes())
        file.flush()  # a full disk must show before the state in memory is given up
    except OSError:
        with suppress(OSError):  # closing flushes once more
            file.close()
        raise
    context.offload()
    return _Stored(file, {name: (tensor.shape, tensor.dtype) for name, tensor in content.items()})


def _read(context: Context, stored: _Stored) -> None:
    with stored.file as file:
        file.seek(0)
        content = {
            name: np.frombuffer(file.read(dtype.itemsize * math.prod(shape)), dtype).reshape(shape)
            for name, (shape, dtype) in stored.tensors.items()
        }
    context.reload(content)
