"""Waits and silences read off a recording of question and answer. Pure.

In: one channel each. Out: samples. A sound is voiced where 10 ms of it are less than 40 dB below its loudest 10 ms: the
questions' noise lies 65 dB below, and speech that is quieter than that is not heard as such.
"""

from __future__ import annotations

import numpy as np

from voxrill.runtime.audio.protocols import Floats

FRAME_SECONDS = 0.010
RANGE = 40.0
"""dB."""

SILENT = 1e-3
"""Full scale of what is loud enough to be a sound at all: -60 dB."""


def voiced(samples: Floats, rate: int) -> tuple[int, int] | None:
    """From which to which sample (n,) samples are voiced; None if nothing is."""
    frame = round(FRAME_SECONDS * rate)
    whole = samples[: len(samples) // frame * frame].reshape(-1, frame)
    loudness = np.sqrt(np.mean(np.square(whole, dtype=np.float64), axis=1))
    loudest = loudness.max(initial=0.0)
    if loudest < SILENT:
        return None
    above = np.flatnonzero(loudness > loudest * 10 ** (-RANGE / 20))
    return int(above[0]) * frame, (int(above[-1]) + 1) * frame
