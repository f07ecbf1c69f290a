"""A caller's own sound as a `Microphone`: whatever gives pieces, brought to blocks of 512 samples at 16 kHz.

In: an iterable of pieces, also an asynchronous one; a function that returns the next piece; or an object with `read`.
Out: `Block`s. One thread takes the pieces, because a source may wait for them. A source that is faster than time, such
as a file, is slowed down: a conversation takes its time.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Any, Protocol, Self, cast

import numpy as np
from numpy.typing import DTypeLike

from voxrill.runtime.asynchronous import Stopped, finished, following, from_loop
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.audio.protocols import BLOCK, RATE, Block, Floats
from voxrill.runtime.audio.sound_source import PieceReader, SoundPiece
from voxrill.runtime.errors import UsageError

FASTER = 1.05
"""How much faster than time a source may be. The clocks of real sources are wrong by less, so that they never wait."""

TAKEN_AT_ONCE = 0.02
"""Seconds of sound that are read at once from a file."""

_WAITING = 64
"""Pieces that may wait to be heard."""

_LOOK = 0.1
"""Seconds after which a thread that waits looks whether it is to end."""

_NOTHING = np.empty(0, np.float32)


class ReadableSource(Protocol):
    """A source of sound that is asked for it."""

    def read(self) -> Any:
        """The next piece; None or nothing at the end. It may be a coroutine function."""


SoundSource = Iterable[SoundPiece] | AsyncIterable[SoundPiece] | Callable[[], Any] | ReadableSource | io.IOBase
"""What gives a conversation's sound, piece by piece: an iterable, a function, or an object with `read`."""


class SourceMicrophone:
    """A `Microphone` that hears `source`.

    Args:
        source: see `SoundSource`.
        sample_rate: Hz of its pieces.
        dtype: the type of their samples; needed where they are bytes.
        ended: called when the source is over, once the turn that it ends in is over, too.
        endpoint: how turns end: the source is followed by as much silence as ends one.
        clock: seconds.

    Raises:
        UsageError: it is no source, or has no rate.
    """

    def __init__(
        self,
        source: SoundSource,
        sample_rate: int | None,
        dtype: DTypeLike | None = None,
        ended: Callable[[], None] = lambda: None,
        endpoint: EndpointOptions | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._reader = PieceReader(sample_rate, dtype)
        file_bytes = max(1, round(TAKEN_AT_ONCE * (sample_rate or 0))) * np.dtype(dtype or np.uint8).itemsize
        self._pieces = _pieces(source, file_bytes)
        self._ended, self._clock = ended, clock
        endpoint = endpoint or EndpointOptions()
        self._silence = (
            math.ceil((endpoint.longest_silence + 2 * endpoint.begin) * RATE / BLOCK) + 1
        )  # blocks after the end
        self._queue: Queue[Floats | None] = Queue(_WAITING)
        self._stopping = Event()
        self._error: BaseException | None = None
        self._pending, self._at = _NOTHING, 0
        self._over = False
        self._began: float | None = None

    def __enter__(self) -> Self:
        thread = Thread(target=self._take, name="voxrill-source", daemon=True)
        following(thread, self._stopping)
        thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take no more pieces. A source that waits for its next piece is left behind in its thread."""
        self._stopping.set()

    def read(self, timeout: float, size: int = BLOCK) -> Block | None:
        """The next `size` samples; None after `timeout` seconds without them.

        Raises:
            Exception: what the source has raised.
        """
        until = self._clock() + timeout
        while len(self._pending) < size and not self._over:
            try:
                piece = self._queue.get(timeout=max(0.0, until - self._clock()))
            except Empty:
                return None
            if piece is None:
                self._end()
            else:
                self._pending = np.concatenate([self._pending, piece])
        if len(self._pending) < size:
            self._after_end(timeout)
            return None
        return self._next(until, size)

    def _end(self) -> None:
        if self._error is not None:
            raise self._error
        self._over = True
        self._pending = np.concatenate([self._pending, np.zeros(self._silence * BLOCK, np.float32)])

    def _after_end(self, timeout: float) -> None:
        """Everything was heard."""
        ended, self._ended = self._ended, lambda: None
        ended()
        self._stopping.wait(timeout)

    def _next(self, until: float, size: int) -> Block | None:
        """Cut off the next block, no sooner than it would have been spoken."""
        now = self._clock()
        self._began = now if self._began is None else self._began
        due = self._began + self._at / RATE / FASTER
        if due > until:
            self._stopping.wait(max(0.0, until - now))
            return None
        if due > now:
            self._stopping.wait(due - now)
        samples, self._pending = self._pending[:size], self._pending[size:]
        self._at += size
        return Block(samples, self._at - size, self._clock())

    def _take(self) -> None:
        """In the source's own thread."""
        try:
            for piece in self._pieces:
                if self._stopping.is_set():
                    return
                self._put(self._reader(piece))
            self._put(self._reader.rest())
        except Stopped:
            return
        except BaseException as error:  # whatever a caller's object raises: the listening thread raises it
            self._error = error
        self._put(None)

    def _put(self, piece: Floats | None) -> None:
        while not self._stopping.is_set():
            try:
                return self._queue.put(piece, timeout=_LOOK)
            except Full:
                continue


def _pieces(source: SoundSource, file_bytes: int) -> Iterator[SoundPiece]:
    """The pieces of a source, one after the other."""
    if isinstance(source, io.IOBase):
        read = getattr(source, "read1", source.read)  # what is there, instead of waiting for all of it
        return iter(lambda: read(file_bytes), b"")
    if hasattr(source, "read"):
        return _until_nothing(cast("ReadableSource", source).read)
    if isinstance(source, AsyncIterable):
        return from_loop(source)
    if isinstance(source, Iterable) and not isinstance(source, str | bytes | bytearray | np.ndarray):
        return iter(source)
    if callable(source):
        return _until_nothing(source)
    raise UsageError(
        f"A source of type {type(source).__name__} gives no pieces of sound",
        "Give an iterable of arrays or bytes, a function that returns the next one, or an object with read()",
    )


def _until_nothing(next_piece: Callable[[], Any]) -> Iterator[SoundPiece]:
    while (piece := finished(next_piece())) is not None and len(piece):
        yield piece
