"""The silence that a reply begins with, left out: what nobody would hear only makes the user wait.

In: a reply's samples, as they are made. Out: the same from a little before its first sound, and how many were left out.
"""

from __future__ import annotations

import numpy as np

from voxrill.runtime.audio.protocols import Floats

QUIET = 0.005
"""Full scale below which it is silence: -46 dB. Of twelve of the built-in model's answers the first sample above it
comes after 14 to 35 ms."""

ATTACK = 0.005
"""Seconds that are kept before it."""

LONGEST = 0.3
"""Seconds that are left out at most: a reply may be quiet altogether."""


class Onset:
    """Follows one reply at `rate` Hz. skipped: samples left out so far."""

    def __init__(self, rate: int) -> None:
        self.skipped = 0
        self._attack = round(ATTACK * rate)
        self._left = round(LONGEST * rate)  # that may still be left out
        self._sounding = False

    def __call__(self, samples: Floats) -> Floats:
        """What is to be played of the next samples (n,): (n,) or fewer."""
        if self._sounding:
            return samples
        loud = np.flatnonzero(np.abs(samples) > QUIET)
        self._sounding = bool(len(loud))
        first = max(0, int(loud[0]) - self._attack) if self._sounding else len(samples)
        first = min(first, self._left)
        self._left -= first
        self.skipped += first
        return samples[first:]
