"""The LFM2 layer stack with explicit state: gated short convolutions and grouped-query attention.

The backbone and the LFM2.5 detokenizer are both such stacks. State goes in and comes out as tensors, in layer order: a
conv layer has one (1, hidden, L_cache), an attention layer two (1, kv_heads, P, head_dim). Source: transformers'
Lfm2Model, whose chunked convolution is wrong for chunks longer than 1 and is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from voxrill.export.fused import add_and_norm, rotate
from voxrill.export.layers import RMSNorm, SwiGLU, attend, rotary_angles, swiglu_width
from voxrill.runtime.errors import CheckpointError

CONV = "conv"
ATTENTION = ("full_attention", "sliding_attention")

Keep = Callable[[torch.Tensor], torch.Tensor]

Past = tuple[torch.Tensor, torch.Tensor]
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Past], tuple[torch.Tensor, Past]]
"""How a stack attends. In: rotated query (B, S, heads, d), key and value (B, S, kv_heads, d), past keys and values (B,
kv_heads, P, d). Out: the mixed values (B, S, heads * d), and the next keys and values."""


def attend_all(bias: torch.Tensor, keep: Keep, keep_keys: Keep | None = None) -> Attend:
    """Attention over past and new together, concatenated.

    Args:
        bias: (S, P + S), added to the scores.
        keep: turns (B, kv_heads, P + S, d) into the next keys or values.
        keep_keys: the same for the keys alone, if it differs for them.
    """

    def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, past: Past) -> tuple[torch.Tensor, Past]:
        keys = torch.cat([past[0], key.transpose(1, 2)], 2)
        values = torch.cat([past[1], value.transpose(1, 2)], 2)
        return attend(query.transpose(1, 2), keys, values, bias), ((keep_keys or keep)(keys), keep(values))

    return run


@dataclass(frozen=True)
class LfmConfig:
    """Sizes of one stack, read from an `lfm` (or detokenizer) config."""

    hidden: int
    layer_types: tuple[str, ...]
    heads: int
    kv_heads: int
    inner: int
    conv_cache: int
    conv_bias: bool
    eps: float
    theta: float
    vocab: int
    max_positions: int

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    def rotary(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine (S, head_dim / 2) of the rotary angles at float `positions` (S,)."""
        return rotary_angles(positions, self.head_dim, self.theta)

    @classmethod
    def read(cls, config: dict[str, Any]) -> LfmConfig:
        """Read the published fields.

        Raises:
            CheckpointError: a field is missing, or a layer type is unknown.
        """
        try:
            inner = int(config["block_ff_dim"] if "block_ff_dim" in config else config["intermediate_size"])
            if config.get("block_auto_adjust_ff_dim", True):
                inner = swiglu_width(
                    inner, config.get("block_multiple_of", 256), config.get("block_ffn_dim_multiplier", 1.0)
                )
            read = cls(
                hidden=config["hidden_size"],
                layer_types=_layer_types(config),
                heads=config["num_attention_heads"],
                kv_heads=config["num_key_value_heads"],
                inner=inner,
                conv_cache=config["conv_L_cache"],
                conv_bias=config.get("conv_bias", False),
                eps=config["norm_eps"],
                theta=_theta(config),
                vocab=config["vocab_size"],
                max_positions=config.get("max_position_embeddings", 128_000),
            )
        except KeyError as error:
            raise CheckpointError(
                f"config.json has no {error.args[0]} for an LFM2 stack",
                "Download the checkpoint again, or check that it is of LFM2-Audio",
            ) from None
        unknown = set(read.layer_types) - {CONV, *ATTENTION}
        if unknown:
            raise CheckpointError(
                f"config.json names unknown layer types {sorted(unknown)}",
                f"Voxrill exports {', '.join((CONV, *ATTENTION))}: check that this is an LFM2-Audio checkpoint",
            )
        return read


def _layer_types(config: dict[str, Any]) -> tuple[str, ...]:
    """`layer_types`, or older configs' `full_attn_idxs`, as transformers' Lfm2Config reads them."""
    if config.get("layer_types") or "full_attn_idxs" not in config:
        return tuple(config["layer_types"])
    attention = set(config["full_attn_idxs"])
    return tuple(ATTENTION[0] if i in attention else CONV for i in range(config["num_hidden_layers"]))


def _theta(config: dict[str, Any]) -> float:
    """Rotary base: `rope_theta`, or newer transformers' `rope_parameters`."""
    parameters = config.get("rope_parameters") or {}
    return float(config.get("rope_theta", parameters.get("rope_theta", 1_000_000.0)))


class _DepthwiseConv(nn.Module):
    """Holds the `conv.conv` weights under their published names."""

    def __init__(self, config: LfmConfig) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            config.hidden, config.hidden, config.conv_cache, groups=config.hidden, bias=config.conv_bias
        )
        self.in_proj = nn.Linear(config.hidden, 3 * config.hidden, bias=config.conv_bias)
        self.out_proj = nn.Linear(config.hidden, config.hidden, bias=config.conv_bias)

    def forward(self, x: torch.Tensor, past: torch.Tensor, keep: Keep) -> tuple[torch.Tensor, torch.Tensor]:
        """Gated short convolution over (1, S, hidden) with `past` (1, hidden, L_cache).

        It is written as a sum of shifted products: onnxruntime's Conv takes 0.13 ms for each layer and step, and wants
        the channels first.
        """
        length, cache = x.shape[1], past.shape[-1]
        gate_in, gate_out, signal = self.in_proj(x).chunk(3, -1)
        whole = torch.cat([past.transpose(1, 2), gate_in * signal], 1)
        taps = self.conv.weight[:, 0].unbind(-1)
        mixed = sum(whole[:, k + 1 : k + 1 + length] * taps[k] for k in range(cache))
        if self.conv.bias is not None:
            mixed = mixed + self.conv.bias
        return self.out_proj(gate_out * mixed), keep(whole.transpose(1, 2))


class _Attention(nn.Module):
    def __init__(self, config: LfmConfig, fused: bool) -> None:
        super().__init__()
        self.head_dim, self.fused = config.head_dim, fused
        kv = config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.k_proj = nn.Linear(config.hidden, kv, bias=False)
        self.v_proj = nn.Linear(config.hidden, kv, bias=False)
        self.out_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.q_layernorm = RMSNorm(config.head_dim, config.eps)
        self.k_layernorm = RMSNorm(config.head_dim, config.eps)

    def forward(
        self, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], attend: Attend, past: Past
    ) -> tuple[torch.Tensor, Past]:
        """Attention over (B, S, hidden) and `past`."""
        query = rotate(self.q_layernorm(self._heads(self.q_proj(x))), rotary, self.fused)
        key = rotate(self.k_layernorm(self._heads(self.k_proj(x))), rotary, self.fused)
        mixed, present = attend(query, key, self._heads(self.v_proj(x)), past)
        return self.out_proj(mixed), present

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, heads * d) to (B, S, heads, d)."""
        return x.reshape(x.shape[0], x.shape[1], x.shape[2] // self.head_dim, self.head_dim)


class LfmLayer(nn.Module):
    """A gated short convolution or an attention, then a SwiGLU, each after a norm."""

    def __init__(self, config: LfmConfig, kind: str, fused: bool) -> None:
        super().__init__()
        self.kind = kind
        if kind == CONV:
            self.conv = _DepthwiseConv(config)
        else:
            self.self_attn = _Attention(config, fused)
        self.feed_forward = SwiGLU(config.hidden, config.inner)
        self.operator_norm = RMSNorm(config.hidden, config.eps)
        self.ffn_norm = RMSNorm(config.hidden, config.eps)


class LfmStack(nn.Module):
    """Layers and final norm; keys as in the checkpoint under `lfm.` (token embeddings live elsewhere).

    Args:
        config: its sizes.
        fused: write onnxruntime's fused operators when it is exported.
    """

    def __init__(self, config: LfmConfig, fused: bool = False) -> None:
        super().__init__()
        self.config, self.fused = config, fused
        self.layers = nn.ModuleList(LfmLayer(config, kind, fused) for kind in config.layer_types)
        self.embedding_norm = RMSNorm(config.hidden, config.eps)

    def forward(
        self,
        x: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        attend: Attend,
        past: Sequence[torch.Tensor],
        keep_conv: Keep,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run the stack.

        Args:
            x: (1, S, hidden).
            rotary: cosine and sine (S, head_dim / 2) of the rotary angles.
            attend: how attention layers attend, and which keys and values they keep.
            past: state tensors in layer order.
            keep_conv: picks the next conv state from (1, hidden, L_cache + S).

        Returns:
            (1, S, hidden) and the next state in the order of `past`.
        """
        layers = [layer for layer in self.layers if isinstance(layer, LfmLayer)]
        state, present = iter(past), list[torch.Tensor]()
        normed = layers[0].operator_norm(x)
        following = [*(layer.operator_norm for layer in layers[1:]), self.embedding_norm]
        for layer, next_norm in zip(layers, following, strict=True):
            if layer.kind == CONV:
                y, conv = layer.conv(normed, next(state), keep_conv)
                present.append(conv)
            else:
                y, kept = layer.self_attn(normed, rotary, attend, (next(state), next(state)))
                present += kept
            x, normed = add_and_norm(layer.ffn_norm, x, y, self.fused)
            x, normed = add_and_norm(next_norm, x, layer.feed_forward(normed), self.fused)
        return normed, present
