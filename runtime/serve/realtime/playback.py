"""The loudspeaker is the client's: what was played of an answer is known by the clock only.

In: an answer's sound as it is made. Out: that sound to the client at once, and an estimate of what it has played: it is
taken to begin with the first piece that it is sent, and never to wait but for the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from voxrill.runtime.audio.protocols import Floats


class ClientPlayer:
    """A `Player` whose sound is sent away.

    Args:
        sample_rate: Hz.
        send: takes sound (n,).
        finished: called when an answer is whole.
        clock: seconds.
    """

    def __init__(
        self,
        sample_rate: int,
        send: Callable[[Floats], None],
        finished: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._rate = sample_rate
        self._send = send
        self._finished = finished
        self._clock = clock
        self._sent = 0  # samples of this answer
        self._end = 0.0  # when all of them will have been played
        self._first: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begin(self, rate: float | None, expected_seconds: float) -> None:
        """A new answer comes."""
        self._sent, self._end, self._first = 0, 0.0, None

    def push(self, samples: Floats) -> None:
        """More of the answer."""
        now = self._clock()
        if self._first is None:
            self._first = now
        self._end = max(self._end, now) + len(samples) / self._rate
        self._sent += len(samples)
        self._send(samples)

    def finish(self) -> None:
        """The answer is whole."""
        self._finished()

    def hold(self, held: bool) -> None:
        """The client's loudspeaker is not held: it is told when the user really begins."""

    def stop(self) -> int:
        """The answer is over; the samples of it that were played."""
        played = self.played()
        self._end = 0.0
        return played

    def all_played(self) -> None:
        """Take all that was sent for played."""
        self._end = 0.0

    def ensure(self) -> None:
        """The client is there, or the session is over."""

    def played(self) -> int:
        """Samples of this answer that were played."""
        left = max(0.0, self._end - self._clock())
        return max(0, self._sent - round(left * self._rate))

    def underruns(self) -> int:
        """Not known here."""
        return 0

    def busy(self) -> bool:
        """Whether some of this answer is still to be played."""
        return self._clock() < self._end

    def first_queued(self) -> float | None:
        """When this answer's first sound was sent."""
        return self._first

    def first_played(self) -> float | None:
        """The same: it is taken to be played at once."""
        return self._first
