"""Where sound begins and ends in a recording of question and answer.

In: one channel. Out: samples. A piece of 10 ms is voiced if it is less than 40 dB below the loudest 10 ms. The noise of
the questions is 65 dB below, and quieter speech than that is not heard as speech.
"""

from __future__ import annotations

import numpy as np

from voxrill.runtime.audio.protocols import Floats

FRAME_SECONDS = 0.010
RANGE = 40.0
"""dB."""

SILENT = 1e-3
"""Level, as a share of full scale, from which anything counts as sound: -60 dB."""


def voiced(samples: Floats, rate: int) -> tuple[int, int] | None:
    """First and last voiced sample of samples (n,); None if nothing is voiced."""
    spells = voiced_spells(samples, rate, np.inf)
    return spells[0] if spells else None


def voiced_spells(samples: Floats, rate: int, gap: float) -> list[tuple[int, int]]:
    """First and last voiced sample of each spell in samples (n,); `gap` seconds of silence are between two."""
    frame = round(FRAME_SECONDS * rate)
    whole = samples[: len(samples) // frame * frame].reshape(-1, frame)
    loudness = np.sqrt(np.mean(np.square(whole, dtype=np.float64), axis=1))
    loudest = loudness.max(initial=0.0)
    if loudest < SILENT:
        return []
    above = np.flatnonzero(loudness > loudest * 10 ** (-RANGE / 20))
    spells = np.split(above, np.flatnonzero(np.diff(above) - 1 >= gap / FRAME_SECONDS) + 1)
    return [(int(spell[0]) * frame, (int(spell[-1]) + 1) * frame) for spell in spells]
