"""The inverse STFT with overlap-add as a product with constant bases; one streaming step, for the npu flavour.

In: log-magnitudes and phases of some columns, and what earlier columns add to the next samples. Out: samples, and the
sums for the next call. The sum of squared windows is that of the middle of a sound. At both ends of a sound fewer
columns overlap; the runtime corrects that (`runtime/engine/istft.py`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class InverseStft(nn.Module):
    """Columns of `n_fft` samples. `overlap` columns cover each sample.

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
        for late, part in enumerate(parts):  # part `late` of a column belongs `late` hops after its first
            total = total + F.pad(part, (0, 0, late, self.overlap - 1 - late))
        return total[:steps].reshape(1, steps * hop), total[steps:].reshape(1, -1)

    def _bases(self) -> torch.Tensor:
        """(n_fft + 2, n_fft): what each real and imaginary part adds to a column, windowed and normalised."""
        n_fft, bins = self.n_fft, self.n_fft // 2 + 1
        sample = torch.arange(n_fft, dtype=torch.float64)
        window = 0.5 - 0.5 * torch.cos(2 * torch.pi * sample / n_fft)
        angle = 2 * torch.pi / n_fft * (torch.arange(bins)[:, None] * torch.arange(n_fft) % n_fft).double()
        twice = torch.full((bins, 1), 2.0, dtype=torch.float64)
        twice[0] = twice[-1] = 1.0  # all other bins stand for their mirror images, too
        bases = torch.cat([twice * torch.cos(angle), -twice * torch.sin(angle)]) / n_fft
        steady = (window**2).mean() * self.overlap
        return (bases * window / steady).float()
