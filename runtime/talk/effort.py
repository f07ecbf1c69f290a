"""What a talk gives up when the machine cannot keep pace, in order, and before a reply stutters.

In: how fast sound is made and how long the next reply is expected to be; whether the last one ran dry. Out: what the
player is told of the next reply, and a sentence when that changed. Pure.

    as usual           the reply sounds as soon as all of it can be played without a gap
    smaller target     it sounds as soon as half of it can: sooner, and it may pause once
    text first         its words are shown as they are made; it sounds when it is whole, and cannot stutter

The first rung on which the sound would begin within PATIENCE is taken, by what the last reply took to make; the last
one for SETTLED replies after one that ran dry all the same. What the model says is the same on every rung, so a replay
is.
"""

from __future__ import annotations

import math
from typing import Literal

from voxrill.runtime.talk.jitter import UNKNOWN_RATE, JitterPolicy

Rung = Literal["as usual", "smaller target", "text first"]

PATIENCE = 1.5
"""Seconds of sound that may have to wait before a reply begins."""

SMALLER = 0.5
"""Of the expected length: what the smaller target promises to play without a gap."""

SETTLED = 2
"""Replies without a gap after which a machine that ran dry is trusted again."""

_LENGTHS: dict[Rung, float] = {"as usual": 1.0, "smaller target": SMALLER}

_SENTENCES: dict[Rung, str] = {
    "as usual": "Sound keeps pace again: answers are spoken as usual",
    "smaller target": "Sound hardly keeps pace ({rate:.1f} s of work a second): it begins early, and may pause",
    "text first": "Sound does not keep pace ({rate:.1f} s of work a second): text first, sound when it is whole",
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
        before, self.rung = self.rung, _wanted(rate, expected)
        if self._settling:
            self.rung = "text first"
        return (
            None if self.rung == before else _SENTENCES[self.rung].format(rate=UNKNOWN_RATE if rate is None else rate)
        )

    def told(self, rate: float | None, expected: float) -> tuple[float | None, float]:
        """What the player is told instead of the reply's rate and length."""
        if self.rung == "smaller target":
            return rate, SMALLER * expected
        return (math.inf if self.rung == "text first" else rate), expected

    def played(self, underruns: int) -> None:
        """A reply is over, and ran dry so many times."""
        self._settling = SETTLED if underruns else max(0, self._settling - 1)


def _wanted(rate: float | None, expected: float) -> Rung:
    """The highest rung on which the next reply begins in time."""
    for rung, length in _LENGTHS.items():
        if JitterPolicy(rate, length * expected).needed(0.0, 0) <= PATIENCE:
            return rung
    return "text first"
