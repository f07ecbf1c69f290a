"""Resampling of sound on its way to the model, as the model's reference resamples it.

In: float32 samples of one rate, in pieces of any length. Out: the same sound at another rate.

The model was taught with sound that torchaudio resampled: a sinc under a Hann window of 6 zero crossings on each side,
with its pass band to 0.99 of half the lower rate. Another filter lets other sound through near that edge. From 44.1 to
16 kHz, soxr's log-mel differs by up to 1.7 normalised units in the bands from about 6.3 kHz up, which the model never
heard. So this computes what `torchaudio.functional.resample` computes with its defaults (within 1e-5), but in pieces
and with bounded memory. It holds back 0.4 to 0.9 ms of the sound; soxr's stream holds back 13 ms. For sound on its way
to a loudspeaker `resampler.Resampler` is the better one: it lets fewer aliases through.
"""

from __future__ import annotations

from math import ceil, gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_CROSSINGS = 6
"""Zero crossings of the sinc on each side (torchaudio's lowpass_filter_width)."""

_ROLLOFF = 0.99
"""The edge of the pass band, as a part of half the lower rate."""

_TABLE = 1 << 18
"""Weights that are kept, at most. Uneven rates, such as 44,099 Hz, need more, and compute them when they are used."""

_BLOCK = 4096
"""Samples that are made at once: their inputs are copied out side by side, 0.7 MB from 44.1 kHz."""


class SincResampler:
    """Resamples one stream from `from_rate` to `to_rate`, Hz. At equal rates it does nothing."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        common = gcd(from_rate, to_rate)
        self._down, self._up = from_rate // common, to_rate // common
        # An output lies at one of `up` phases between two inputs; each phase has its own weights.
        self._half = ceil(_CROSSINGS * self._down / (_ROLLOFF * min(self._down, self._up)))
        small = self._up * (2 * self._half + 2) <= _TABLE
        self._table = self._kernels(np.arange(self._up)) if small else None
        self._begin()

    def _begin(self) -> None:
        self._heard = np.zeros(self._half, np.float32)  # the sound begins after silence
        self._first = -self._half  # the index, in the whole sound, of the first of those
        self._made = 0

    def __call__(self, samples: Floats) -> Floats:
        """Take the next samples (n,); return those (m,) that later ones cannot change any more."""
        if self._down == self._up:
            return samples
        self._heard = np.concatenate([self._heard, samples])
        # Output j is made of the inputs from j * down // up - half to j * down // up + half + 1.
        complete = self._first + self._heard.size - self._half - 1
        return self._make(ceil(complete * self._up / self._down) if complete > 0 else 0)

    def missing(self, count: int) -> int:
        """How many more samples it must take until `count` more can be made."""
        if self._down == self._up:
            return count
        # Output j can be made as soon as more than j * down / up inputs are complete, see `__call__`.
        needed = (self._made + count - 1) * self._down // self._up + 1
        return max(0, needed + self._half + 1 - self._first - self._heard.size)

    def rest(self) -> Floats:
        """At the end of the sound: what was held back. After that the resampler is ready for another sound."""
        if self._down == self._up:
            return np.empty(0, np.float32)
        total = -(-(self._first + self._heard.size) * self._up // self._down)
        self._heard = np.concatenate([self._heard, np.zeros(self._half + 2, np.float32)])
        rest = self._make(total)
        self._begin()
        return rest

    def _make(self, until: int) -> Floats:
        """Make the outputs up to number `until`, and forget the inputs that no later one needs."""
        made = np.empty(max(until - self._made, 0), np.float32)
        for start in range(0, made.size, _BLOCK):
            piece = made[start : start + _BLOCK]
            self._fill(piece, self._made + start)
        self._made += made.size
        needed = self._made * self._down // self._up - self._half
        self._heard = self._heard[needed - self._first :].copy()
        self._first = needed
        return made

    def _fill(self, piece: Floats, number: int) -> None:
        """Fill in the outputs (n,) from `number` on."""
        numbers = np.arange(number, number + piece.size)
        starts = numbers * self._down // self._up - self._half - self._first
        windows = sliding_window_view(self._heard, 2 * self._half + 2)[starts]
        phases = numbers % self._up
        kernels = self._kernels(phases) if self._table is None else self._table[phases]
        np.einsum("ij,ij->i", windows, kernels, out=piece)

    def _kernels(self, phases: NDArray[np.int64]) -> Floats:
        """The weights (n, 2 half + 2) of phases (n,). The first belongs to the input `half` before the output."""
        down, up = self._down, self._up
        inputs = (phases * down // up - self._half)[:, None] + np.arange(2 * self._half + 2)
        cutoff = _ROLLOFF * min(down, up)
        # In float32, as torchaudio: its rounding is part of the weights (up to 1e-4 at uneven rates).
        ahead = (inputs / down).astype(np.float32) - (phases / up).astype(np.float32)[:, None]
        position = np.clip(ahead * np.float32(cutoff), -_CROSSINGS, _CROSSINGS)
        window = np.cos(position * np.pi / _CROSSINGS / 2) ** 2
        kernels: Floats = (np.sinc(position) * window * (cutoff / down)).astype(np.float32)
        return kernels


def resample(waveform: Floats, from_rate: int, to_rate: int) -> Floats:
    """The whole sound (samples,) at another rate: (ceil(samples * to_rate / from_rate),).

    At equal rates it is the very same array.
    """
    if from_rate == to_rate:
        return waveform
    resampler = SincResampler(from_rate, to_rate)
    return np.concatenate([resampler(waveform), resampler.rest()])
