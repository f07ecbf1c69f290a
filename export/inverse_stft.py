"""The inverse STFT with overlap-add as products with constant bases, a streaming step: for the npu flavour.

In: log-magnitudes and phases of some columns, and what earlier columns add to the samples to come. Out: samples, and
the same for the next call. The window's sum of squares is taken to be what it is in the middle of a sound; its two
ends, where fewer columns overlap, are made good by the host (`runtime/engine/istft.py`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class InverseStft(nn.Module):
    """Columns of `n_fft` samples, `overlap` of which lie over each sample.

    Args:
        n_fft: samples of a column's window, a periodic Hann window.
        overlap: columns over each sample; the hop is n_fft / overlap.
    """

    def __init__(self, n_fft: int, overlap: int) -> None:
        super().__init__()
        self.n_fft, self.overlap = n_fft, overlap

    def forward(self, features: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From features (1, S, n_fft + 2) and past (1, n_fft - hop) to samples (1, S * hop) and the next past."""
        hop, steps = self.n_fft // self.overlap, features.shape[1]
        magnitude, phase = features.chunk(2, -1)
        magnitude = magnitude.exp()
        columns = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], -1) @ self._bases()
        parts = columns.reshape(steps, self.overlap, hop).unbind(1)
        total = F.pad(past.reshape(self.overlap - 1, hop), (0, 0, 0, steps))
        for late, part in enumerate(parts):  # a column's part falls on the hop so many after its first
            total = total + F.pad(part, (0, 0, late, self.overlap - 1 - late))
        return total[:steps].reshape(1, steps * hop), total[steps:].reshape(1, -1)

    def _bases(self) -> torch.Tensor:
        """(n_fft + 2, n_fft): samples of a column for each real and imaginary part, windowed and normalised."""
        n_fft, bins = self.n_fft, self.n_fft // 2 + 1
        sample = torch.arange(n_fft, dtype=torch.float64)
        window = 0.5 - 0.5 * torch.cos(2 * torch.pi * sample / n_fft)
        angle = 2 * torch.pi / n_fft * (torch.arange(bins)[:, None] * torch.arange(n_fft) % n_fft).double()
        twice = torch.full((bins, 1), 2.0, dtype=torch.float64)
        twice[0] = twice[-1] = 1.0  # the other bins stand for their mirror images too
        bases = torch.cat([twice * torch.cos(angle), -twice * torch.sin(angle)]) / n_fft
        steady = (window**2).mean() * self.overlap
        return (bases * window / steady).float()
