"""Leaves out the silence at the beginning of a reply: it would only make the user wait.

In: a reply's samples, as they are made. Out: the samples from a little before the first sound on, and how many were
left out.
"""

from __future__ import annotations

import numpy as np

from voxrill.runtime.audio.protocols import Floats

QUIET = 0.005
"""Absolute value, full scale 1, below which a sample is silence: -46 dB. In twelve answers of the built-in model, the
first sample above it came after 14 to 35 ms."""

ATTACK = 0.005
"""Seconds that are kept before the first sound."""

LONGEST = 0.3
"""Seconds that are left out at most: a whole reply may be quiet."""


class Onset:
    """Follows one reply at `rate` Hz. skipped: samples left out so far."""

    def __init__(self, rate: int) -> None:
        self.skipped = 0
        self._attack = round(ATTACK * rate)
        self._left = round(LONGEST * rate)  # that may still be left out
        self._sounding = False

    def __call__(self, samples: Floats) -> Floats:
        """Take the next samples (n,); return what is to be played of them: (n,) or fewer."""
        if self._sounding:
            return samples
        loud = np.flatnonzero(np.abs(samples) > QUIET)
        self._sounding = bool(len(loud))
        # The attack is kept from this chunk only: what earlier chunks had of it was left out already.
        first = max(0, int(loud[0]) - self._attack) if self._sounding else len(samples)
        first = min(first, self._left)
        self._left -= first
        self.skipped += first
        return samples[first:]
