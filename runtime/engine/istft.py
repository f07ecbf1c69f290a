"""Inverse STFT by overlap-add, as a stream: columns in, finished samples out.

Source: the reference's ISTFT with "same" padding: a periodic Hann window, the sum divided by the sum of squared
windows, and (n_fft - hop) / 2 samples cut at both ends. So the first columns give (n_fft - hop) / 2 samples fewer,
and `flush` gives them at the end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Ends:
    """What is left to do after a graph that adds the columns up itself: both ends of the sound.

    The ends are cut. Near them fewer columns overlap than elsewhere, and samples are scaled up for that.

    Args:
        n_fft: samples of a column's window.
        hop: samples between columns.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        self._cut, self._begun = (n_fft - hop) // 2, False
        squares = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).reshape(-1, hop) ** 2
        # Row k: what the squared windows of the first k + 1 columns add up to, at each of a hop's samples. From the
        # last row on it is the same for every hop, and the graph divides by that. At the ends the true sum is smaller.
        weight = np.cumsum(squares, 0)
        steady = weight[-1].mean()
        ahead, behind = weight[:-1].ravel(), (weight[-1] - weight[:-1]).ravel()
        self._first, self._last = steady / ahead[self._cut :], steady / behind[: len(behind) - self._cut]

    def push(self, samples: Floats) -> Floats:
        """The samples of the graph's next call as they are heard."""
        if self._begun:
            return samples
        self._begun = True
        heard = samples[self._cut :].copy()
        heard[: len(self._first)] *= self._first
        return heard

    def flush(self, overlap: Floats) -> Floats:
        """The last samples, from the graph's last `past_overlap` (n_fft - hop,); then the sound is over."""
        held: Floats = (overlap[: len(self._last)] * self._last).astype(np.float32)
        return held if self._begun else held[:0]


class OverlapAdd:
    """Adds columns up. Its state is the n_fft samples that later columns still add to.

    Args:
        n_fft: samples of a column's window.
        hop: samples between columns.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        self.n_fft, self.hop = n_fft, hop
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
        self.reset()

    def reset(self) -> None:
        """Start a new sound."""
        self._sum = np.zeros(self.n_fft)
        self._weight = np.zeros(self.n_fft)
        self._cut = (self.n_fft - self.hop) // 2

    def push(self, features: Floats) -> Floats:
        """The samples that are final with `features` (columns, n_fft + 2): log-magnitudes, then phases."""
        bins = self.n_fft // 2 + 1
        spectrum = np.exp(features[:, :bins]) * np.exp(1j * features[:, bins:])
        columns = np.fft.irfft(spectrum, self.n_fft, axis=1) * self._window
        finished = [self._add(column) for column in columns]
        return self._trim(np.concatenate(finished)) if finished else np.zeros(0, np.float32)

    def flush(self) -> Floats:
        """The last samples, which waited for more columns; then a new sound starts."""
        held = self.n_fft - self.hop - (self.n_fft - self.hop) // 2
        tail = self._sum[:held] / np.maximum(self._weight[:held], np.finfo(np.float64).tiny)
        samples = self._trim(tail) if self._weight[0] else np.zeros(0, np.float32)
        self.reset()
        return samples

    def _add(self, column: NDArray[np.float64]) -> NDArray[np.float64]:
        # No later column reaches the first hop of samples: they are final, and both buffers move on by a hop.
        self._sum += column
        self._weight += self._window**2
        done = self._sum[: self.hop] / np.maximum(self._weight[: self.hop], np.finfo(np.float64).tiny)
        for buffer in (self._sum, self._weight):
            buffer[: -self.hop] = buffer[self.hop :]
            buffer[-self.hop :] = 0.0
        return done

    def _trim(self, samples: NDArray[np.float64]) -> Floats:
        cut = min(self._cut, len(samples))
        self._cut -= cut
        return samples[cut:].astype(np.float32)
