"""A caller's own way out for spoken sound: a `Player` that hands each reply to an object with `write`, as it is played.

In: replies, pushed as they are made. Out: chunks of 20 ms, each at its time, so that what was handed over is what was
heard, and an interruption is heard at once. One thread does all the writing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.asynchronous import Stopped, finished, following
from voxrill.runtime.audio.audio_file import check_rate
from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.reply_player import ReplyPlayer
from voxrill.runtime.audio.reply_sound import ReplySound
from voxrill.runtime.errors import UsageError

CHUNK = 0.02
"""Seconds of sound that are written at once."""

LEAD = 0.04
"""Seconds by which chunks are written before they are due: what a sink that plays in real time has in reserve."""

_GUARD = 0.5
"""Seconds after which the thread looks whether it is to end, where nothing wakes it before."""

SINK_TYPES = ("float32", "int16")


class SoundSink(Protocol):
    """Where spoken sound goes to. It may also have a method `stop`: be silent at once, and drop what waits."""

    def write(self, samples: NDArray[Any], /) -> Any:
        """Take the next samples (n,), mono. It may block until there is room, and it may be a coroutine function."""


class SinkPlayer(ReplyPlayer):
    """A `Player` that writes into `sink`.

    Args:
        sink: see `SoundSink`.
        sample_rate: the model's, Hz.
        rate: Hz that the sink takes; None for the model's.
        dtype: "float32" (full scale ±1) or "int16".
        clock: seconds.

    Raises:
        UsageError: it is no sink, or the rate or type makes no sense.
    """

    def __init__(
        self,
        sink: SoundSink,
        sample_rate: int,
        rate: int | None = None,
        dtype: str = "float32",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(sample_rate, clock)
        if not callable(getattr(sink, "write", None)):
            raise UsageError(
                f"A sink of type {type(sink).__name__} takes no sound",
                "Give an object with a method write(samples), and stop() where it buffers; or a loudspeaker's name",
            )
        if dtype not in SINK_TYPES:
            raise UsageError(f"A sink cannot have samples of type {dtype!r}", f"Give one of: {', '.join(SINK_TYPES)}")
        self.rate = sample_rate if rate is None else rate
        check_rate(self.rate)
        self._sink, self._dtype = sink, dtype
        self._leaving = Event()
        self._news = Event()  # there may be something to write, or to stop
        self._stopped: deque[ReplySound] = deque()
        self._error: BaseException | None = None
        self._frames = max(1, round(CHUNK * self.rate))
        self._set_fades(self.rate, self._frames)

    def __enter__(self) -> Self:
        self._leaving.clear()
        self._thread = Thread(target=self._play, name="voxrill-sink", daemon=True)
        following(self._thread, self._leaving)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop writing. A sink that blocks for ever is left behind in its thread."""
        self._leaving.set()
        self._news.set()
        self._thread.join(1.0)

    def begin(self, rate: float | None, expected_seconds: float) -> None:
        """Begin a reply."""
        self.ensure()
        self._begin_reply(self.rate, rate, expected_seconds)
        self._news.set()

    def push(self, samples: Floats) -> None:
        """Append to the reply: (n,) at the model's rate."""
        super().push(samples)
        self._news.set()

    def finish(self) -> None:
        """The reply is complete: play what there is."""
        super().finish()
        self._news.set()

    def hold(self, held: bool) -> None:
        """Fade this reply out and hold it, or let it go on."""
        super().hold(held)
        self._news.set()

    def stop(self) -> int:
        """Be silent. The sink is told by the thread that writes. See `Player`."""
        played = super().stop()
        # A queue and not a flag of the reply: the next reply may take its place before that thread looks.
        self._stopped.append(self._reply)
        self._news.set()
        return played

    def ensure(self) -> None:
        """Raise what the sink has raised."""
        if self._error is not None:
            raise self._error

    def _play(self) -> None:
        try:
            due = 0.0
            while not self._leaving.is_set():
                self._news.clear()  # before looking: what comes meanwhile sets it again
                while self._stopped:
                    reply = self._stopped.popleft()
                    if self._silence():
                        reply.silent = True  # nothing is left of it to fade out
                if not self._write():
                    self._news.wait(_GUARD)
                    continue
                # After a pause the next chunk is due now: a sink that blocked is not made to catch up.
                due = max(due, self._clock()) + CHUNK
                self._leaving.wait(max(0.0, due - LEAD - self._clock()))
        except Stopped:
            return
        except BaseException as error:  # whatever a caller's object raises: the thread that answers raises it
            self._error = error

    def _silence(self) -> bool:
        """The user interrupts: let the sink drop what it holds. Returns whether it can."""
        stop = getattr(self._sink, "stop", None)
        if stop is None:
            return False
        finished(stop())
        return True

    def _write(self) -> bool:
        """Write the next chunk. Returns whether there was one."""
        chunk = np.empty(self._frames, np.float32)
        filled = self._fill(chunk)
        if filled:
            finished(self._sink.write(chunk[:filled] if self._dtype == "float32" else pcm16(chunk[:filled])))
        return bool(filled)
