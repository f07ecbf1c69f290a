"""What a talk gives up, step by step, when the machine makes sound more slowly than it is played.

In: how fast sound is made, how long the next reply is expected to be, and whether the last one had gaps. Out: what the
player is told of the next reply, and a sentence for the user when that changes. Pure functions and one small state.

    as usual           the reply is played as soon as all of it can be played without a gap
    smaller target     it is played as soon as half of it can: earlier, and it may pause
    text first         that would still be late: it is played when it is safe, long after its words are shown
    sound when whole   the last reply had gaps all the same: the next ones are played when they are complete

On every rung words are shown as they are made, and the model says the same, so that a replay makes the same answers.
"""

from __future__ import annotations

import math
from typing import Literal

from voxrill.runtime.audio.jitter import CAUTION, UNKNOWN_RATE, JitterPolicy

Rung = Literal["as usual", "smaller target", "text first", "sound when whole"]

PATIENCE = 3.0
"""Seconds from a reply's first sound that is made to its first sound that is played, at most. Chosen, not measured."""

SMALLER = 0.5
"""The part of the expected length that the smaller target plays without a gap."""

SETTLED = 2
"""Replies without a gap after which a machine that had gaps counts as fast enough again."""

_SENTENCES: dict[Rung, str] = {
    "as usual": "Sound is made fast enough again: answers are spoken as usual",
    "smaller target": "Sound is hardly made fast enough ({rate:.1f} s of work for 1 s): it begins early, and may pause",
    "text first": "Sound is made too slowly ({rate:.1f} s of work for 1 s): you read answers first, then hear them",
    "sound when whole": "Sound had gaps: you read answers first, and hear them when they are complete",
}


class Effort:
    """The step of the list above that a talk is on."""

    def __init__(self) -> None:
        self.rung: Rung = "as usual"
        self._settling = 0

    def adapt(self, rate: float | None, expected: float) -> str | None:
        """Choose the rung for the next reply; a sentence for the user if it changed.

        Args:
            rate: seconds of computing for a second of sound; None if it is not known.
            expected: expected length of the reply, seconds of sound.
        """
        known = UNKNOWN_RATE if rate is None else rate
        before, self.rung = self.rung, "sound when whole" if self._settling else _wanted(known, expected)
        return None if self.rung == before else _SENTENCES[self.rung].format(rate=known)

    def told(self, rate: float | None, expected: float) -> tuple[float | None, float]:
        """The rate and length that the player is told instead of the true ones."""
        if self.rung == "sound when whole":
            return math.inf, expected
        if self.rung == "text first" and rate is not None:
            return CAUTION * rate, expected
        return rate, SMALLER * expected if self.rung == "smaller target" else expected

    def played(self, underruns: int) -> None:
        """A reply is over; it had this number of gaps."""
        self._settling = SETTLED if underruns else max(0, self._settling - 1)


def _wanted(rate: float, expected: float) -> Rung:
    """The first rung on which the next reply begins within `PATIENCE`."""
    if _wait(rate, expected) <= PATIENCE:
        return "as usual"
    return "smaller target" if _wait(rate, SMALLER * expected) <= PATIENCE else "text first"


def _wait(rate: float, seconds: float) -> float:
    """Seconds of computing before the reply may be played."""
    return rate * JitterPolicy(rate, seconds).needed(0.0, 0.0, 0)
