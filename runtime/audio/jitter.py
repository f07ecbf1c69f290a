"""When a reply may begin to sound: as soon as the rest of it can be played without a gap, and no sooner.

In: how fast sound is made, how much of it is expected, how much waits. Out: whether to start, or start again. Pure.

A reply of T seconds, made at r seconds of computing a second of sound, of which b seconds wait, plays through without a
gap if r(T - b) ≤ T, so b ≥ T(1 - 1/r): nothing for a device faster than real time. On top comes the longest lull: sound
comes in rounds, some text first, and while the text is made no sound comes. Of a round that has just begun the text is
made already, so that such a device catches up before the next lull; the nearer its end, the more of that must wait.
"""

from __future__ import annotations

import math

ROUND = 0.96
"""Seconds of sound of a round: 12 frames of 80 ms."""

LULL = 0.48
"""Seconds of sound, half a round: making the text of a round takes less than making its sound."""

MARGIN = 0.06
"""Seconds of sound, most of a frame: what is made is not made at an even rate."""

UNKNOWN_RATE = 1.0
"""Seconds of computing a second of sound, of a device that was not measured yet."""

CAUTION = 1.25
"""What the measured rate is multiplied by after each time that the reply ran dry: it was too hopeful."""


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
        """Seconds of sound that must wait before it may sound, where `waiting` do.

        Args:
            waiting: seconds of sound.
            played: seconds of the reply that were played, or left out.
            dry: times that it ran dry.
        """
        rate = self._rate * CAUTION**dry
        left = max(0.0, self._expected - played)
        if rate > 1:
            return rate * LULL + left * (1 - 1 / rate)
        rounds = (played + waiting) / ROUND
        begun = rounds - math.ceil(rounds) + 1  # of the newest sound's round, over 0 to 1
        return rate * (MARGIN + (LULL - MARGIN) * begun)

    def may_start(self, waiting: float, played: float, dry: int) -> bool:
        """Whether `waiting` seconds of sound are enough to start."""
        return waiting >= self.needed(waiting, played, dry)
