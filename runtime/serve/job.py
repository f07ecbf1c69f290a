"""A request's work: the worker's thread makes it step by step, the event loop takes it item by item.

In: a function that makes the steps, called in the worker's thread. Out: their items, in order. When the client left,
the work ends at its next step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.worker import Worker

Item = TypeVar("Item")


class Pause(Enum):
    """A step that had nothing to do: what it waits for is made in another thread, which wakes the worker then."""

    PAUSE = auto()


PAUSE = Pause.PAUSE


@dataclass(frozen=True)
class _End:
    error: Exception | None = None


class Job(Generic[Item]):
    """One request's work. It holds at most one answer's items, whose number `Limits.answer` bounds.

    Args:
        make: makes the steps; called by the first step. A step may make no item (None), or have to wait (`PAUSE`).
        worker: whose thread runs the steps.
    """

    def __init__(self, make: Callable[[], Iterator[Item | Pause | None]], worker: Worker) -> None:
        self.over = False
        self._make = make
        self._worker = worker
        self._steps: Iterator[Item | Pause | None] | None = None
        self._seconds = 0.0
        self._cancelled = False  # set by the event loop, read by the worker: late by one step at most
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Item | _End] = asyncio.Queue()

    def step(self) -> bool:
        """Make the next item. The worker's thread calls it, and `fail`."""
        started = time.perf_counter()
        try:
            if self._cancelled:
                self._end(None)
                return True
            if self._steps is None:
                self._steps = self._make()
            item = next(self._steps)
            if isinstance(item, Pause):
                return False
            if item is not None:
                self._put(item)
        except StopIteration:
            self._end(None)
        except (ApiError, VoxrillError) as error:  # the client's mistake, which is told to the client only
            self._end(error)
        finally:
            self._seconds += time.perf_counter() - started
        return True

    def fail(self, error: Exception) -> None:
        """The work failed."""
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        self.over = True
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()
        self._worker.worked(self._seconds)
        self._put(_End(error))

    def _put(self, item: Item | _End) -> None:
        # An asyncio queue belongs to its loop's thread, so that the loop itself must put the item in.
        with suppress(RuntimeError):  # the loop is closed: nobody is left to take it
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def items(self) -> AsyncIterator[Item]:
        """Begin the work, and take its items. The event loop calls it, and `cancel`."""
        self._worker.submit(self)
        while True:
            item = await self._items.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def cancel(self) -> None:
        """Make no more of it."""
        self._cancelled = True
