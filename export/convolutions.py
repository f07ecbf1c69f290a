"""Streaming convolutions as matrix products, so that the ordinary recipes quantise them: Mimi's SEANet decoder.

Signals are (1, T, channels), so that a stride is a reshape. The state is as in the contract, (1, channels, steps).
onnxruntime has no 8-bit transposed convolution; its 8-bit convolution is slower than its float one; and its float ones
are slow on the few samples of a streaming step. With products, Mimi at the true size has an INT8 graph of 48.7 MB
instead of 92.8, and a frame takes 5.5 ms of processor time instead of 8.3 (one thread; in float32 without repacking
20.3 instead of 21.4).
"""

from __future__ import annotations

import torch
from torch import nn

from voxrill.export.layers import ConvProduct, TransposedConvProduct
from voxrill.export.windowed import keep_last

Streamed = tuple[torch.Tensor, torch.Tensor]
"""Output (1, T', out) and the next state."""


class CausalConv(nn.Module):
    """A causal convolution. Its state is the last `kernel - 1` inputs."""

    def __init__(self, width_in: int, width_out: int, kernel: int) -> None:
        super().__init__()
        self.product = ConvProduct(width_in, width_out, kernel)

    def forward(self, x: torch.Tensor, past: torch.Tensor) -> Streamed:
        """From x (1, T, in) and past (1, in, kernel - 1). The inputs that each output sees are laid side by side."""
        whole = torch.cat([past.transpose(1, 2), x], 1)
        earlier = past.shape[-1]
        seen = torch.cat([whole.narrow(1, tap, x.shape[1]) for tap in range(earlier + 1)], -1)
        return self.product(seen), keep_last(earlier, whole, 1).transpose(1, 2)


class CausalTransposedConv(nn.Module):
    """A causal transposed convolution of kernel 2 * stride. Its state is the tail of the last input, without bias."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.product = TransposedConvProduct(width_in, width_out, 2 * stride, stride, bias=False)
        self.bias = nn.Parameter(torch.zeros(width_out))

    def forward(self, x: torch.Tensor, past: torch.Tensor) -> Streamed:
        """From x (1, T, in) and past (1, out, stride)."""
        steps = self.product(x).unflatten(-1, (2 * past.shape[-1], -1))
        y, present = _overlap_add(steps, past)
        return y + self.bias, present


class CausalUpsampling(nn.Module):
    """A causal transposed convolution of kernel 2 * stride, each channel on its own, without bias."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, 1, 2 * stride))

    def forward(self, x: torch.Tensor, past: torch.Tensor) -> Streamed:
        """From x (1, T, width) and past (1, width, stride)."""
        return _overlap_add(x[:, :, None] * self.weight[:, 0].t(), past)


def _overlap_add(steps: torch.Tensor, past: torch.Tensor) -> Streamed:
    """Add the second half of each step to the first half of the next one: steps (1, T, 2 * stride, channels)."""
    first, second = steps.chunk(2, 2)
    tails = torch.cat([past.transpose(1, 2)[:, None], second], 1)
    y = first + tails.narrow(1, 0, steps.shape[1])
    return y.flatten(1, 2), keep_last(1, tails, 1)[:, 0].transpose(1, 2)
