"""The layer stack of LFM3-Audio with explicit state: backbone, encoder, depth decoder and codec are all such stacks.

A layer is a gated short convolution or a grouped-query attention, then a SwiGLU. State goes in and comes out as
tensors, in layer order: a conv layer has one (1, hidden, kernel - 1), an attention layer two (1, kv_heads, P,
head_dim). Source: transformers' Lfm3Model; the encoder is an Lfm2Model with a window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from voxrill.export.layers import RMSNorm, SwiGLU, rotate_halves
from voxrill.export.lfm import CONV, Attend, Keep, Past

Rotary = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine (S, head_dim / 2)."""


@dataclass(frozen=True)
class StackConfig:
    """Sizes of one stack.

    kinds: "conv" or a kind of attention, layer by layer; kernel: taps of the convolutions; sandwich: whether what a
    block adds is normed, too; gated: whether each head's output is multiplied by a gate.
    """

    hidden: int
    inner: int
    kinds: tuple[str, ...]
    heads: int
    kv_heads: int
    head_dim: int
    kernel: int
    sandwich: bool
    gated: bool
    eps: float = 1e-5


def rotary(positions: torch.Tensor, head_dim: int, theta: float, turned: float = 1.0) -> Rotary:
    """Rotary angles at float `positions` (S,), of which the share `turned` of the pairs is rotated.

    The other pairs have a frequency of 0. The exponents are those of the whole head: this is not the usual partial
    rotation, which counts the rotated pairs only.
    """
    pairs = torch.arange(head_dim // 2, dtype=torch.float32)
    frequencies = 1.0 / theta ** (2 * pairs / head_dim) * (pairs < turned * head_dim // 2)
    angles = positions[:, None] * frequencies
    return angles.cos(), angles.sin()


class ShortConv(nn.Module):
    """A gated short convolution. Its state is the last `kernel - 1` gated inputs."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.conv = nn.Conv1d(hidden, hidden, config.kernel, groups=hidden, bias=False)
        self.in_proj = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out_proj = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x: torch.Tensor, past: torch.Tensor, keep: Keep) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, S, hidden) and `past` (1, hidden, kernel - 1); `keep` as in `Lfm3Stack`."""
        gate_in, gate_out, signal = self.in_proj(x).chunk(3, -1)
        whole = torch.cat([past.transpose(1, 2), gate_in * signal], 1)
        # A sum of shifted products: onnxruntime's Conv is slower for one position, and wants the channels first.
        taps = self.conv.weight[:, 0].unbind(-1)
        mixed = sum(whole[:, k : k + x.shape[1]] * tap for k, tap in enumerate(taps))
        return self.out_proj(gate_out * mixed), keep(whole.transpose(1, 2))


class GatedAttention(nn.Module):
    """Grouped-query attention with normed queries and keys, and perhaps a gate for each head."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        width, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, width, bias=False)
        self.k_proj = nn.Linear(config.hidden, kv, bias=False)
        self.v_proj = nn.Linear(config.hidden, kv, bias=False)
        self.o_proj = nn.Linear(width, config.hidden, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.eps)
        self.k_norm = RMSNorm(config.head_dim, config.eps)
        self.g_proj = nn.Linear(config.hidden, config.heads, bias=False) if config.gated else None

    def forward(self, x: torch.Tensor, angles: Rotary, attend: Attend, past: Past) -> tuple[torch.Tensor, Past]:
        """Attention over (1, S, hidden) and `past`."""
        cos, sin = (part[:, None] for part in angles)
        query = rotate_halves(self.q_norm(self._heads(self.q_proj(x))), cos, sin)
        key = rotate_halves(self.k_norm(self._heads(self.k_proj(x))), cos, sin)
        mixed, present = attend(query, key, self._heads(self.v_proj(x)), past)
        if self.g_proj is not None:  # the gate sees the layer's input, not what the heads found
            mixed = (self._heads(mixed) * torch.sigmoid(self.g_proj(x))[..., None]).flatten(2)
        return self.o_proj(mixed), present

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """(1, S, heads * d) to (1, S, heads, d)."""
        return x.reshape(x.shape[0], x.shape[1], x.shape[2] // self.head_dim, self.head_dim)


class Lfm3Layer(nn.Module):
    """One layer; `kind` says what its first half is."""

    def __init__(self, config: StackConfig, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == CONV:
            self.conv = ShortConv(config)
        else:
            self.self_attn = GatedAttention(config)
        self.feed_forward = SwiGLU(config.hidden, config.inner)
        self.operator_norm = RMSNorm(config.hidden, config.eps)
        self.ffn_norm = RMSNorm(config.hidden, config.eps)
        self.post_operator_norm = RMSNorm(config.hidden, config.eps) if config.sandwich else nn.Identity()
        self.post_ffn_norm = RMSNorm(config.hidden, config.eps) if config.sandwich else nn.Identity()


class Lfm3Stack(nn.Module):
    """Layers and final norm."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Lfm3Layer(config, kind) for kind in config.kinds)
        self.embedding_norm = RMSNorm(config.hidden, config.eps)

    def forward(
        self,
        x: torch.Tensor,
        angles: Mapping[str, Rotary],
        attend: Mapping[str, Attend],
        past: Sequence[torch.Tensor],
        keep_conv: Keep,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run the stack.

        Args:
            x: (1, S, hidden).
            angles: rotary angles by kind of attention.
            attend: by kind, how attention layers attend, and which keys and values they keep.
            past: state tensors in layer order.
            keep_conv: picks the next conv state from (1, hidden, kernel - 1 + S).

        Returns:
            (1, S, hidden) and the next state in the order of `past`.
        """
        state, present = iter(past), []
        for layer in self.layers:
            assert isinstance(layer, Lfm3Layer)
            normed = layer.operator_norm(x)
            if layer.kind == CONV:
                y, conv = layer.conv(normed, next(state), keep_conv)
                present.append(conv)
            else:
                pair = next(state), next(state)
                y, kept = layer.self_attn(normed, angles[layer.kind], attend[layer.kind], pair)
                present += kept
            x = x + layer.post_operator_norm(y)
            x = x + layer.post_ffn_norm(layer.feed_forward(layer.ffn_norm(x)))
        return self.embedding_norm(x), present
