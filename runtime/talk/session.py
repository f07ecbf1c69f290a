"""A talk for a program: events in a loop, own sound in and out.

In: a `Talk` whose view is the session. Out: its events, for `for` or `async for`, while the talk runs in a thread of
its own. `run` runs it in the calling thread instead, for a view that shows the events at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from voxrill.runtime.asynchronous import following
from voxrill.runtime.errors import UsageError
from voxrill.runtime.talk.events import TalkEvent, View
from voxrill.runtime.talk.loop import Talk


class _Over:
    """Comes after the last event."""


class EventQueue:
    """A `View` that keeps events until they are taken. loudness: dB of full scale of the last block heard."""

    def __init__(self) -> None:
        self.loudness = float("-inf")
        self._put: Callable[[TalkEvent | _Over], None] = lambda _event: None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def put_into(self, put: Callable[[TalkEvent | _Over], None]) -> None:
        """Where events go to."""
        self._put = put

    def show(self, event: TalkEvent) -> None:
        """Keep an event."""
        self._put(event)

    def level(self, dbfs: float) -> None:
        """Note how loud the source is."""
        self.loudness = dbfs

    def end(self) -> None:
        """No more events come."""
        self._put(_Over())


class TalkSession:
    """A talk. Made by `Model.talk`.

        with model.talk(source=..., sink=...) as talk:
            for event in talk:
                ...

    `async with` and `async for` work as well; then the source, the sink and the tools may be asynchronous. The loop
    ends when the talk does: when its source is over and answered, or after `close`. It raises what ended the talk.

    `ask`, `say`, `interrupt`, `press` and `close` may be called from any thread.

    Args:
        make: makes the talk; it is given the session, whose `close` its source calls, and the view.
        view: shows the events of `run`; None for a session whose events are iterated.
    """

    def __init__(self, make: Callable[[TalkSession, View], Talk], view: View | None = None) -> None:
        self._events = EventQueue()
        self._own_view = view is not None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._taken: SimpleQueue[TalkEvent | _Over] = SimpleQueue()
        self._awaited: asyncio.Queue[TalkEvent | _Over] = asyncio.Queue()
        self._talk = make(self, view or self._events)

    @property
    def loudness(self) -> float:
        """How loud the source is now: dB of full scale, -inf for silence."""
        return self._events.loudness

    # What a program may do meanwhile

    def ask(self, text: str) -> None:
        """Ask in writing, as if the user had said it. It interrupts an answer that is being played."""
        self._talk.type(text)

    def say(self, text: str) -> None:
        """Say this sentence now, such as a greeting. It interrupts an answer that is being played."""
        self._talk.say(text)

    def interrupt(self) -> None:
        """Stop the answer that is being played, as if the user had begun to speak."""
        self._talk.interrupt()

    def press(self) -> None:
        """The push-to-talk key was pressed."""
        self._talk.press()

    def wait_until_answered(self) -> None:
        """Wait until what was asked last is answered and the answer played. Not for an event loop."""
        self._talk.wait_until_answered()

    def close(self, finish: bool = False, error: Exception | None = None) -> None:
        """End the talk: at once, or after the answer that is being played. The loop raises `error`, if it is given."""
        self._talk.close(finish, error)

    # Running

    def run(self) -> None:
        """Talk in the calling thread until it is closed. The view shows the events.

        Raises:
            AudioDeviceError: a device cannot be used, or is gone for good.
            Exception: what a source, a sink or `close` raises.
        """
        self._talk.run()

    def __enter__(self) -> Self:
        """Begin to talk."""
        self._begin(self._taken.put)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the talk at once. What ended it before is raised, unless another error is under way."""
        self.close()
        assert self._thread is not None
        self._thread.join()
        self._raise_error(error)

    def __iter__(self) -> Iterator[TalkEvent]:
        """Events as they happen, until the talk is over."""
        self._check_begun("with model.talk(...) as talk")
        while not isinstance(event := self._taken.get(), _Over):
            yield event
        self._taken.put(event)  # a second loop ends at once
        self._raise_error(None)

    async def __aenter__(self) -> Self:
        """Begin to talk."""
        loop = asyncio.get_running_loop()

        def put(event: TalkEvent | _Over) -> None:
            loop.call_soon_threadsafe(self._awaited.put_nowait, event)

        self._begin(put)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the talk at once, without blocking the loop."""
        self.close()
        assert self._thread is not None
        await asyncio.to_thread(self._thread.join)
        self._raise_error(error)

    async def __aiter__(self) -> AsyncIterator[TalkEvent]:
        """Events as they happen, until the talk is over."""
        self._check_begun("async with model.talk(...) as talk")
        while not isinstance(event := await self._awaited.get(), _Over):
            yield event
        self._awaited.put_nowait(event)
        self._raise_error(None)

    def _begin(self, put: Callable[[TalkEvent | _Over], None]) -> None:
        if self._thread is not None or self._own_view:
            raise UsageError("This talk was begun before, or has a view of its own", "Make another: model.talk(...)")
        self._events.put_into(put)
        self._thread = threading.Thread(target=self._work, name="voxrill-talk", daemon=True)
        following(self._thread, threading.Event())
        self._thread.start()

    def _work(self) -> None:
        """In the talk's thread."""
        try:
            self._talk.run()
        except BaseException as error:  # whatever it is: the loop over the events raises it
            self._error = error
        self._events.end()

    def _check_begun(self, how: str) -> None:
        if self._thread is None:
            raise UsageError("This talk has not begun", f"Begin it: {how}: ...")

    def _raise_error(self, under_way: BaseException | None) -> None:
        error, self._error = self._error, None
        if error is not None and under_way is None:
            raise error
