"""Sound of one clock, given out at the pace of another: resampled a little, so that neither gaps nor a queue arise.

In: sound as one device takes it. Out: as much as another device asks for. The two clocks differ, by 0.1 % say, and by
another amount an hour later. What waits shows by how much: a slow control holds it at one length, and changes the pace
too gently to be heard.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from voxrill.runtime.audio.protocols import RATE, Floats

_TAPS = 16
"""Samples that a sample between two others is made of: a sinc under a Hann window. Half of them wait."""

_MOST = 0.005
"""By how much the pace may differ from 1. Clocks of sound cards differ by less than 0.001."""

_SMOOTH = 1.0
"""Seconds over which the length of the queue is averaged: chunks come in bursts."""

_PROPORTIONAL = 0.1 / RATE
_INTEGRAL = 0.0025 / RATE
"""Change of the pace for a sample too many, and for one too many during a second. The queue comes back to its length in
half a minute, without swinging. Meanwhile a clock that is wrong by 0.1 % moves it by 60 samples."""

_NOTHING = np.zeros(0, np.float32)


class ClockFollower:
    """A queue between two clocks. `waiting`: samples that wait.

    Args:
        target: samples that wait after sound was taken, on average.
        most: samples that may wait; after a standstill the oldest are dropped.
    """

    def __init__(self, target: int, most: int) -> None:
        self._target, self._most = target, most
        self._given = np.zeros(_TAPS, np.float32)
        self._place = 0.0  # of the next sample, from the window's middle
        self._ready = _NOTHING
        self._waited = float(target)
        self._drift = 0.0
        self.pace = 1.0

    @property
    def waiting(self) -> int:
        """Samples that can be taken now."""
        return len(self._ready)

    def put(self, samples: Floats) -> None:
        """More sound, (n,)."""
        self._given = np.concatenate([self._given, samples])
        places = np.arange(self._place, len(self._given) - _TAPS, self.pace)
        if len(places):
            self._ready = np.concatenate([self._ready, self._between(places)])
            self._place = places[-1] + self.pace
        whole = min(int(self._place), len(self._given) - _TAPS)
        self._given, self._place = self._given[whole:], self._place - whole

    def take(self, count: int) -> Floats:
        """The next `count` samples; silence for those that are not there."""
        samples, self._ready = self._ready[:count], self._ready[count:]
        return samples if len(samples) == count else np.pad(samples, (0, count - len(samples)))

    def adjust(self, seconds: float) -> None:
        """Set the pace, after sound of `seconds` was taken."""
        if len(self._ready) > self._most:
            self._ready = self._ready[-self._target :]
        self._waited += (len(self._ready) - self._waited) * min(1.0, seconds / _SMOOTH)
        wrong = self._waited - self._target
        self._drift = float(np.clip(self._drift + _INTEGRAL * wrong * seconds, -_MOST, _MOST))
        self.pace = 1.0 + float(np.clip(self._drift + _PROPORTIONAL * wrong, -_MOST, _MOST))

    def _between(self, places: NDArray[np.float64]) -> Floats:
        """The sound at `places` (n,)."""
        whole = places.astype(np.int64)
        away = (places - whole)[:, None] - np.arange(1 - _TAPS // 2, _TAPS // 2 + 1)
        kernels = np.sinc(away) * np.cos(away * np.pi / (_TAPS + 1)) ** 2
        windows = sliding_window_view(self._given, _TAPS)[whole]
        return np.asarray(np.einsum("ij,ij->i", windows, kernels), np.float32)
