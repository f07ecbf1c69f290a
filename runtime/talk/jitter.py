"""When a reply may begin to sound: as soon as the rest of it can be played without a gap, and no sooner.

In: how fast sound is made, how much of it is expected, how much waits. Out: whether to start, or start again. Pure.

A reply of T seconds, made at r seconds of computing a second of sound, of which b seconds wait, plays through without a
gap if r(T - b) ≤ T, so b ≥ T(1 - 1/r): nothing for a device faster than real time. On top comes the longest lull: sound
comes in rounds, some text first, and while the text is made no sound comes.
"""

from __future__ import annotations

LULL = 0.48
"""Seconds of sound, half a round of 12 frames of 80 ms: making the text of a round takes less than making its sound."""

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

    def needed(self, played: float, dry: int) -> float:
        """Seconds of sound that must wait before it may sound, `played` seconds in and having run dry `dry` times."""
        rate = self._rate * CAUTION**dry
        left = max(0.0, self._expected - played)
        return rate * LULL + (left * (1 - 1 / rate) if rate > 1 else 0.0)

    def may_start(self, waiting: float, played: float, dry: int) -> bool:
        """Whether `waiting` seconds of sound are enough to start."""
        return waiting >= self.needed(played, dry)
