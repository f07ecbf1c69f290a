"""What a talk gives up when the machine cannot keep pace, in order, and before a reply stutters.

In: how fast sound is made and how long the next reply is expected to be; whether the last one ran dry. Out: what the
player is told of the next reply, and a sentence when that changed. Pure.

    as usual           the reply sounds as soon as all of it can be played without a gap
    smaller target     it sounds as soon as half of it can: sooner, and it may pause
    text first         its words are there long before its sound, which therefore waits until it is safe, too
    sound when whole   the last reply ran dry all the same: the next ones sound when nothing of them is missing

Words are shown as they are made on every rung, and what the model says is the same, so a replay is.
"""

from __future__ import annotations

import math
from typing import Literal

from voxrill.runtime.audio.jitter import CAUTION, UNKNOWN_RATE, JitterPolicy

Rung = Literal["as usual", "smaller target", "text first", "sound when whole"]

PATIENCE = 3.0
"""Seconds that the sound of a reply may take to begin, after its first part was made. A judgement, not measured."""

SMALLER = 0.5
"""Of the expected length: what the smaller target promises to play without a gap."""

SETTLED = 2
"""Replies without a gap after which a machine that ran dry is trusted again."""

_SENTENCES: dict[Rung, str] = {
    "as usual": "Sound keeps pace again: answers are spoken as usual",
    "smaller target": "Sound hardly keeps pace ({rate:.1f} s of work a second): it begins early, and may pause",
    "text first": "Sound does not keep pace ({rate:.1f} s of work a second): text first, and sound when it is safe",
    "sound when whole": "Sound ran dry: text first, and sound when all of it is made",
}


class Effort:
    """The rung that a talk is on."""

    def __init__(self) -> None:
        self.rung: Rung = "as usual"
        self._settling = 0

    def adapt(self, rate: float | None, expected: float) -> str | None:
        """Before a reply: choose the rung; a sentence if it is another one.

        Args:
            rate: seconds of computing per second of sound; None if it is not known.
            expected: seconds of sound that the reply is expected to have.
        """
        known = UNKNOWN_RATE if rate is None else rate
        before, self.rung = self.rung, "sound when whole" if self._settling else _wanted(known, expected)
        return None if self.rung == before else _SENTENCES[self.rung].format(rate=known)

    def told(self, rate: float | None, expected: float) -> tuple[float | None, float]:
        """What the player is told instead of the reply's rate and length."""
        if self.rung == "sound when whole":
            return math.inf, expected
        if self.rung == "text first" and rate is not None:
            return CAUTION * rate, expected
        return rate, SMALLER * expected if self.rung == "smaller target" else expected

    def played(self, underruns: int) -> None:
        """A reply is over, and ran dry so many times."""
        self._settling = SETTLED if underruns else max(0, self._settling - 1)


def _wanted(rate: float, expected: float) -> Rung:
    """The first rung on which the next reply begins in time."""
    if _wait(rate, expected) <= PATIENCE:
        return "as usual"
    return "smaller target" if _wait(rate, SMALLER * expected) <= PATIENCE else "text first"


def _wait(rate: float, seconds: float) -> float:
    """Seconds that it takes to make what must wait before the reply may sound."""
    return rate * JitterPolicy(rate, seconds).needed(0.0, 0.0, 0)
