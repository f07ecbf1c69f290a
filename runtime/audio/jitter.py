"""When a reply may start to play: as soon as the rest of it can be played without a gap, and no sooner.

In: how fast sound is made, how much of it is expected, how much waits. Out: whether to start, or to start again. It has
no clock and no thread.

Say that a reply has T seconds of sound, that a second of sound takes r seconds to compute, and that b seconds of sound
wait. When playing starts, r(T - b) seconds of computing are left, and T seconds of playing. So there is no gap if
r(T - b) ≤ T, which means b ≥ T(1 - 1/r). For a device that is faster than real time (r < 1) that is nothing.

On top of that come pauses: the model makes sound in rounds. Each round begins with some text tokens, and while it makes
text it makes no sound. If the newest sound lies at the beginning of a round, the text of that round is made already,
and a fast device gains time until the next pause. The nearer the end of the round, the more sound must wait.
"""

from __future__ import annotations

import math

ROUND = 0.96
"""Seconds of sound of a round: 12 frames of 80 ms."""

TEXT_PAUSE = 0.48
"""Seconds of sound that could be made while the text of a round is made: at most half a round."""

MARGIN = 0.06
"""Seconds of sound, most of a frame: sound is not made at an even rate."""

UNKNOWN_RATE = 1.0
"""Seconds of computing for a second of sound, on a device that was not measured yet."""

CAUTION = 1.25
"""The measured rate is multiplied by this after each underrun: it was too optimistic."""


class JitterPolicy:
    """The policy of one reply.

    Args:
        rate: seconds of computing per second of sound; None if it is not known.
        expected: seconds of sound that the reply is expected to have.
    """

    def __init__(self, rate: float | None, expected: float) -> None:
        self._rate = UNKNOWN_RATE if rate is None else rate
        self._expected = expected

    def needed(self, waiting: float, played: float, dry: int) -> float:
        """Seconds of sound that must wait before the reply may start or go on.

        Args:
            waiting: seconds of sound that wait.
            played: seconds of the reply that were played, or left out as silence.
            dry: underruns so far.
        """
        rate = self._rate * CAUTION**dry
        left = max(0.0, self._expected - played)
        if rate > 1:
            return rate * TEXT_PAUSE + left * (1 - 1 / rate)
        rounds = (played + waiting) / ROUND
        # How far the newest sound's round has come: more than 0, and 1 at its end (0 rounds count as the end of one).
        begun = rounds - math.ceil(rounds) + 1
        return rate * (MARGIN + (TEXT_PAUSE - MARGIN) * begun)

    def may_start(self, waiting: float, played: float, dry: int) -> bool:
        """Whether `waiting` seconds of sound are enough to start."""
        return waiting >= self.needed(waiting, played, dry)
