"""How high a voice is: the median fundamental frequency of a sound, by autocorrelation.

In: sound. Out: Hz.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 65, 350
"""The search for a voice goes from the first to the second, Hz."""
WINDOW_SECONDS = 0.04
LOUD = 0.1
"""A window counts if it has at least this share of the loudest window's power."""
VOICED = 0.5
"""A window is voiced if its normalised autocorrelation is at least this."""


def median_pitch(sound: NDArray[np.float32], rate: int) -> float:
    """Median over the voiced windows of `sound` (n,), Hz; NaN if there are none."""
    size = int(WINDOW_SECONDS * rate)
    if len(sound) < size:
        return float("nan")
    hann = np.hanning(size + 2)[1:-1]
    windows = sound[np.arange(0, len(sound) - size + 1, size // 2)[:, None] + np.arange(size)]
    power = np.mean(windows**2, 1)
    windows = windows[(power > 0) & (power >= LOUD * power.max())]
    correlation = _autocorrelation((windows - windows.mean(1, keepdims=True)) * hann) / _autocorrelation(hann)
    shortest, longest = rate // HIGHEST, rate // LOWEST
    strength = correlation[:, shortest:longest] / correlation[:, :1]
    periods = shortest + strength.argmax(1)[strength.max(1, initial=0) >= VOICED]
    return float(np.median(rate / periods)) if len(periods) else float("nan")


def _autocorrelation(windows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row (..., n), at lags 0 to n - 1."""
    size = windows.shape[-1]
    correlation: NDArray[np.float64] = np.fft.irfft(np.abs(np.fft.rfft(windows, 2 * size)) ** 2)[..., :size]
    return correlation
