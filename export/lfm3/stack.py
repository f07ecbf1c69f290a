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

from voxrill.export.fused import Rotary, add_and_norm, rotate
from voxrill.export.layers import Joined, RMSNorm, SwiGLU
from voxrill.export.lfm import CONV, Attend, Keep, Past


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

    def __init__(self, config: StackConfig, fused: bool = False) -> None:
        super().__init__()
        self.head_dim, self.fused = config.head_dim, fused
        width, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, width, bias=False)
        self.k_proj = nn.Linear(config.hidden, kv, bias=False)
        self.v_proj = nn.Linear(config.hidden, kv, bias=False)
        self.o_proj = nn.Linear(width, config.hidden, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.eps)
        self.k_norm = RMSNorm(config.head_dim, config.eps)
        self.g_proj = nn.Linear(config.hidden, config.heads, bias=False) if config.gated else None
        self.qg_proj: Joined | None = None
        self.kv_proj: Joined | None = None

    def join(self) -> None:
        """Make one product of queries and gates, and one of keys and values."""
        assert self.g_proj is not None, "only gated layers are joined"
        self.qg_proj, self.kv_proj = Joined(self.q_proj, self.g_proj), Joined(self.k_proj, self.v_proj)
        del self.q_proj, self.g_proj, self.k_proj, self.v_proj

    def forward(
        self, x: torch.Tensor, angles: Rotary, attend: Attend, past: Past, wanted: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Past]:
        """Attention over (1, S, hidden) and `past`, for all positions or the `wanted` (n,) ones."""
        asking, turns = x, angles
        if wanted is not None:
            asking, turns = x[:, wanted], (angles[0][wanted], angles[1][wanted])
        wish, gate = self._asked(asking)
        kept, value = (self.k_proj(x), self.v_proj(x)) if self.kv_proj is None else self.kv_proj(x)
        query = rotate(self.q_norm(self._heads(wish)), turns, self.fused)
        key = rotate(self.k_norm(self._heads(kept)), angles, self.fused)
        mixed, present = attend(query, key, self._heads(value), past)
        if gate is not None:  # the gate sees the layer's input, not what the heads found
            mixed = (self._heads(mixed) * torch.sigmoid(gate)[..., None]).flatten(2)
        return self.o_proj(mixed), present

    def _asked(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Queries and gates of the rows that ask."""
        if self.qg_proj is not None:
            query, gate = self.qg_proj(x)
            return query, gate
        return self.q_proj(x), None if self.g_proj is None else self.g_proj(x)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """(1, S, heads * d) to (1, S, heads, d)."""
        return x.reshape(x.shape[0], x.shape[1], x.shape[2] // self.head_dim, self.head_dim)


class Lfm3Layer(nn.Module):
    """One layer; `kind` says what its first half is."""

    def __init__(self, config: StackConfig, kind: str, fused: bool = False) -> None:
        super().__init__()
        self.kind = kind
        if kind == CONV:
            self.conv = ShortConv(config)
        else:
            self.self_attn = GatedAttention(config, fused)
        self.feed_forward = SwiGLU(config.hidden, config.inner)
        self.operator_norm = RMSNorm(config.hidden, config.eps)
        self.ffn_norm = RMSNorm(config.hidden, config.eps)
        self.post_operator_norm = RMSNorm(config.hidden, config.eps) if config.sandwich else nn.Identity()
        self.post_ffn_norm = RMSNorm(config.hidden, config.eps) if config.sandwich else nn.Identity()


class Lfm3Stack(nn.Module):
    """Layers and final norm.

    Args:
        config: its sizes.
        fused: write onnxruntime's fused operators when it is exported.
    """

    def __init__(self, config: StackConfig, fused: bool = False) -> None:
        super().__init__()
        self.config, self.fused = config, fused
        self.layers = nn.ModuleList(Lfm3Layer(config, kind, fused) for kind in config.kinds)
        self.embedding_norm = RMSNorm(config.hidden, config.eps)

    def join(self) -> None:
        """Join products that take the same rows, now that the weights are loaded: fewer and larger ones are faster."""
        for module in self.modules():
            if isinstance(module, GatedAttention | SwiGLU):
                module.join()

    def forward(
        self,
        x: torch.Tensor,
        angles: Mapping[str, Rotary],
        attend: Mapping[str, Attend],
        past: Sequence[torch.Tensor],
        keep_conv: Keep,
        wanted: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run the stack.

        Args:
            x: (1, S, hidden).
            angles: rotary angles by kind of attention.
            attend: by kind, how attention layers attend, and which keys and values they keep.
            past: state tensors in layer order.
            keep_conv: picks the next conv state from (1, hidden, kernel - 1 + S).
            wanted: positions (n,) to give; all where it is None. The last layer, an attention, computes only these.

        Returns:
            (1, S, hidden), or (1, n, hidden), and the next state in the order of `past`.
        """
        layers = [layer for layer in self.layers if isinstance(layer, Lfm3Layer)]
        state, present = iter(past), list[torch.Tensor]()
        normed = layers[0].operator_norm(x)
        following = [*(layer.operator_norm for layer in layers[1:]), self.embedding_norm]
        for layer, norm in zip(layers, following, strict=True):
            if layer.kind == CONV:
                y, conv = layer.conv(normed, next(state), keep_conv)
                present.append(conv)
            else:
                pair = next(state), next(state)
                now = wanted if layer is layers[-1] else None
                y, kept = layer.self_attn(normed, angles[layer.kind], attend[layer.kind], pair, now)
                present += kept
                x = x if now is None else x[:, now]
            x, normed = add_and_norm(layer.ffn_norm, x, layer.post_operator_norm(y), self.fused)
            x, normed = add_and_norm(norm, x, layer.post_ffn_norm(layer.feed_forward(normed)), self.fused)
        return normed, present
