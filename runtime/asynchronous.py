"""Work for an event loop: it is done in a thread of its own, so that the loop is never blocked, and it can be stopped.

In: a function, or an iterator that makes its items slowly. Out: its result to `await`, or its items for `async for`.
When the task is cancelled, or the loop over the items is left, the work stops at the next place where it looks
(`check_stopped`: between two runs of a graph).
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from voxrill.runtime.errors import UsageError

Made = TypeVar("Made")

_LOOK = 0.1
"""Seconds after which a thread that waits for a loop looks whether it was stopped."""

_here = threading.local()
_OVER: Any = object()


class Stopped(Exception):
    """Nobody waits for this work any more. It is raised in the work's own thread, and nobody sees it."""


def check_stopped() -> None:
    """Raise `Stopped` if nobody waits for what this thread does."""
    stop: threading.Event | None = getattr(_here, "stop", None)
    if stop is not None and stop.is_set():
        raise Stopped


@contextmanager
def _worker() -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
    """A thread of its own. When the `with` block ends it is told to stop; nobody waits for that."""
    stop = threading.Event()
    loop = asyncio.get_running_loop()

    def begin() -> None:
        _here.stop, _here.loop = stop, loop

    pool = ThreadPoolExecutor(1, "voxrill-async", initializer=begin)
    try:
        yield pool, stop
    finally:
        stop.set()
        pool.shutdown(wait=False)


async def in_thread(work: Callable[[], Made]) -> Made:
    """The result of `work`, which is done in a thread of its own."""
    with _worker() as (pool, _):
        return await asyncio.get_running_loop().run_in_executor(pool, work)


async def items_in_thread(make: Callable[[], Iterator[Made]]) -> AsyncGenerator[Made]:
    """The items of the iterator that `make` returns. The iterator is made, used and closed in a thread of its own."""
    loop = asyncio.get_running_loop()
    with _worker() as (pool, stop):
        made: list[Iterator[Made]] = []

        def first() -> None:
            made.append(iter(make()))

        try:
            await loop.run_in_executor(pool, first)
            while (item := await loop.run_in_executor(pool, next, made[0], _OVER)) is not _OVER:
                yield item
        finally:
            # A step may still be under way in the thread. The pool has one thread, so the iterator is closed after it.
            stop.set()
            pool.submit(_close, made)


def following(thread: threading.Thread, stop: threading.Event) -> None:
    """Before `thread` starts: it is told to stop by `stop`, and what it must await is awaited in the caller's loop."""
    loop: asyncio.AbstractEventLoop | None
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = getattr(_here, "loop", None)  # a thread that follows a loop starts another one
    run = thread.run

    def begin() -> None:
        _here.stop, _here.loop = stop, loop
        run()

    thread.run = begin  # type: ignore[method-assign]


def finished(value: Any) -> Any:
    """A value, or what comes of it if it must be awaited: the loop that this thread follows awaits it.

    Raises:
        UsageError: there is no such loop.
    """
    if not inspect.isawaitable(value):
        return value
    loop = getattr(_here, "loop", None)
    if loop is None:
        if inspect.iscoroutine(value):
            value.close()
        raise _no_loop()

    async def done() -> Any:
        return await value

    return _awaited(asyncio.run_coroutine_threadsafe(done(), loop))


def _no_loop() -> UsageError:
    return UsageError(
        "This must be awaited, and there is no event loop", "Use it in an event loop: async with, async for"
    )


def from_loop(items: AsyncIterable[Made]) -> Iterator[Made]:
    """The items of an asynchronous iterable, for a thread of `in_thread` or `items_in_thread`: its loop makes them."""
    loop = getattr(_here, "loop", None)
    if loop is None:
        raise _no_loop()
    iterator = aiter(items)

    async def next_item() -> Made:
        return await anext(iterator, _OVER)

    while (item := _awaited(asyncio.run_coroutine_threadsafe(next_item(), loop))) is not _OVER:
        yield item


def _awaited(future: Future[Made]) -> Made:
    """What a loop makes; nothing more of it once nobody waits for the work."""
    while not future.done():
        wait([future], _LOOK)
        try:
            check_stopped()
        except Stopped:
            future.cancel()
            raise
    return future.result()


def _close(made: list[Any]) -> None:
    for iterator in made:
        if hasattr(iterator, "close"):
            iterator.close()
