"""How loud sound is."""

from __future__ import annotations

import numpy as np

from voxrill.runtime.audio.protocols import Floats

CLIPPED = 0.999
"""Absolute value, full scale 1, from which a sample counts as clipped."""


def level(samples: Floats) -> float:
    """The loudness of `samples`: dB of full scale, -inf for silence."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10 * float(np.log10(power)) if power > 0 else -np.inf
