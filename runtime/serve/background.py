"""Work beside the model: the upload threads make its steps, and the model's thread takes what they make.

In: a generator, each step of which takes milliseconds. Out: its items, to the event loop or to the model's thread,
which never waits for them. One step is made at a time. The next item is looked for while the one before is used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from enum import Enum, auto
from threading import Lock
from typing import BinaryIO, Generic, TypeVar

from voxrill.runtime.serve.job import PAUSE, Pause

Item = TypeVar("Item")

_SLICE = 0.2
"""Seconds for which a thread works for one request, before the next one has its turn."""


class _Empty(Enum):
    """What a thread found instead of an item: nothing yet, or no more at all."""

    NOTHING = auto()
    OVER = auto()


class Background(Generic[Item]):
    """One request's work in the upload threads.

    Args:
        steps: makes the items; None for a step that makes none. Only one thread at a time runs it.
        file: what the steps read. It is closed with the work.
        threads: the upload threads.
        wake: called in one of them when an item is there.
    """

    def __init__(
        self,
        steps: Generator[Item | None, None, None],
        file: BinaryIO,
        threads: ThreadPoolExecutor,
        wake: Callable[[], None],
    ) -> None:
        self._steps = steps
        self._file = file
        self._threads = threads
        self._wake = wake
        self._lock = Lock()  # a generator cannot be closed while another thread runs it

    async def first(self) -> Item:
        """The next item, for the event loop. There must be one."""
        while True:
            item = await asyncio.wrap_future(self._look())
            if not isinstance(item, _Empty):
                return item
            assert item is _Empty.NOTHING

    def rest(self) -> Iterator[Item | Pause]:
        """All further items, for the model's thread: `PAUSE` while the next one is not there."""
        looking = self._look()
        while True:
            while not looking.done():
                yield PAUSE
            item = looking.result()
            if item is _Empty.OVER:
                return
            looking = self._look()
            if not isinstance(item, _Empty):
                yield item

    def close(self) -> None:
        """End the work, once the steps in progress are made. It returns at once."""
        with suppress(RuntimeError):  # the server ends: there are no threads any more
            self._threads.submit(self._close)

    def _look(self) -> Future[Item | _Empty]:
        looking = self._threads.submit(self._next)
        looking.add_done_callback(lambda _: self._wake())
        return looking

    def _next(self) -> Item | _Empty:
        until = time.perf_counter() + _SLICE
        with self._lock:
            for item in self._steps:
                if item is not None:
                    return item
                if time.perf_counter() > until:
                    return _Empty.NOTHING
            return _Empty.OVER

    def _close(self) -> None:
        with self._lock:
            self._steps.close()
            self._file.close()
