"""onnxruntime's fused operators, for graphs that run on the CPU: a step has hundreds of small nodes without them.

In: tensors in torch. Out: the same as plain layers compute; when a graph is exported, one node each. The npu flavour
has none of them.
"""

from __future__ import annotations

import torch

from voxrill.export.layers import RMSNorm, attend, rotate_halves

GROUPED = "com.microsoft::GroupQueryAttention"
GROUPED_WIDTH = 16
"""Its heads have a multiple of this width."""
_UNGROUPED = "com.microsoft::MultiHeadAttention"
_SKIP_NORM = "com.microsoft::SkipSimplifiedLayerNormalization"
_ROTARY = "com.microsoft::RotaryEmbedding"

Rotary = tuple[torch.Tensor, torch.Tensor]


def exporting(fused: bool) -> bool:
    """Whether a fused operator is to be written."""
    return fused and torch.onnx.is_in_onnx_export()


def add_and_norm(norm: RMSNorm, x: torch.Tensor, y: torch.Tensor, fused: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of x and y (..., dim), and its norm."""
    if not exporting(fused):
        return x + y, norm(x + y)
    count = (*x.shape[:-1], 1)
    normed, _, _, total = torch.onnx.ops.symbolic_multi_out(
        _SKIP_NORM,
        (x, y, norm.weight),
        {"epsilon": norm.eps},
        dtypes=(x.dtype,) * 4,
        shapes=(x.shape, count, count, x.shape),
        version=1,
    )
    return total, normed


def rotate(x: torch.Tensor, rotary: Rotary, fused: bool) -> torch.Tensor:
    """Rotary embedding over the two halves of a head: (1, S, heads, d), angles (S, d / 2)."""
    cos, sin = rotary
    if not exporting(fused):
        return rotate_halves(x, cos[:, None], sin[:, None])
    flat, positions = x.flatten(2), torch.arange(x.shape[1])[None]
    turned = torch.onnx.ops.symbolic(
        _ROTARY, (flat, positions, cos, sin), {}, dtype=x.dtype, shape=flat.shape, version=1
    )
    return turned.reshape(x.shape)


def attend_everywhere(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, fused: bool) -> torch.Tensor:
    """Attention of all positions to all: (1, S, heads, d), keys and values (1, T, kv_heads, d) to (1, S, heads * d)."""
    if not exporting(fused):
        return attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), None)
    (_, length, heads, width), kv_heads = query.shape, key.shape[2]
    # The operator has no heads that share a key: here such heads are further positions of one head.
    grouped = query.reshape(length, kv_heads, heads // kv_heads, width).transpose(1, 2)
    rows = grouped.reshape(1, length * heads // kv_heads, kv_heads * width)
    mixed = torch.onnx.ops.symbolic(
        _UNGROUPED,
        (rows, key.flatten(2), value.flatten(2)),
        {"num_heads": kv_heads},
        dtype=query.dtype,
        shape=rows.shape,
        version=1,
    )
    return mixed.reshape(length, heads // kv_heads, kv_heads, width).transpose(1, 2).reshape(1, length, heads * width)


def attend_in_turn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rotary: Rotary,
    cache: list[torch.Tensor],
    step: int,
) -> torch.Tensor:
    """Attention of one position to all before it, and to itself, with pairs of channels rotated.

    Args:
        query: (1, 1, heads, d), not rotated.
        key: (1, 1, kv_heads, d), not rotated.
        value: (1, 1, kv_heads, d).
        rotary: angles (steps, d / 2) of all positions.
        cache: keys and values of the positions before; the new ones are added to it.
        step: the position.

    Returns:
        (1, 1, heads * d).
    """
    heads, kv_heads, head_dim = query.shape[2], key.shape[2], key.shape[3]
    counts = (torch.tensor([step], dtype=torch.int32), torch.tensor([step + 1], dtype=torch.int32))
    present = (1, kv_heads, step + 1, head_dim)
    flat = [x.flatten(2) for x in (query, key, value)]
    mixed, *cache[:] = torch.onnx.ops.symbolic_multi_out(
        GROUPED,
        (*flat, *(cache or (None, None)), *counts, *rotary),
        {"num_heads": heads, "kv_num_heads": kv_heads, "do_rotary": 1, "rotary_interleaved": 1},
        dtypes=(query.dtype,) * 3,
        shapes=(flat[0].shape, present, present),
        version=1,
    )
    return mixed
