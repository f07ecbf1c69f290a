"""The client plays the sound, so that the clock must tell how much of an answer was played.

In: an answer's sound as it is made. Out: that sound to the client at once, and an estimate of how much it has played.
The client is taken to begin with the first piece, and to pause only when it has no further one.
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
        finished: called when an answer is complete.
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
        """Begin a new answer."""
        self._sent, self._end, self._first = 0, 0.0, None

    def push(self, samples: Floats) -> None:
        """Send more of the answer."""
        now = self._clock()
        if self._first is None:
            self._first = now
        self._end = max(self._end, now) + len(samples) / self._rate  # after a gap, this piece is played from now on
        self._sent += len(samples)
        self._send(samples)

    def finish(self) -> None:
        """The answer is complete."""
        self._finished()

    def hold(self, held: bool) -> None:
        """Do nothing: the client stops its loudspeaker itself when it is told that the user speaks."""

    def stop(self) -> int:
        """End the answer; the samples of it that were played."""
        played = self.played()
        self._end = 0.0
        return played

    def all_played(self) -> None:
        """Treat all that was sent as played."""
        self._end = 0.0

    def ensure(self) -> None:
        """Do nothing: without a client there is no session."""

    def played(self) -> int:
        """Samples of this answer that were played."""
        left = max(0.0, self._end - self._clock())
        return max(0, self._sent - round(left * self._rate))

    def underruns(self) -> int:
        """Always 0: the client does not report gaps."""
        return 0

    def busy(self) -> bool:
        """Whether some of this answer is still to be played."""
        return self._clock() < self._end

    def first_queued(self) -> float | None:
        """The time at which this answer's first sound was sent."""
        return self._first

    def first_played(self) -> float | None:
        """The same time: the sound is taken to be played at once."""
        return self._first
