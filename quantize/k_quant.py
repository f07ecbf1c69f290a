"""Rounding to 2, 3 or 4 bits with a search: each block gets the scale and zero point of least weighted squared error.

In: a weight (rows, columns). Out: its `PackedMatrix`. As in llama.cpp's make_qkx2_quants, large weights count more,
ranges narrower than the block's own are tried, and the scale of each try is fitted by least squares. Zero points are
whole numbers, as MatMulNBits wants them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxrill.quantize.weights import PackedMatrix, in_blocks, largest_level, pack

Floats = NDArray[np.float32]

SHRUNK = np.linspace(1.0, 0.6, 9)
"""Shares of a block's range that are tried. Numbers outside are clipped."""
AT_ONCE = 1 << 22
"""Numbers in one piece of work. It keeps the memory at about 100 MB."""

_TINY = 1e-12


def to_k_quant(weight: Floats, bits: int, block: int) -> PackedMatrix:
    """Round to so many bits. `block` rows of a column share a scale; asymmetric."""
    blocks = in_blocks(weight, block)
    step = max(1, AT_ONCE // blocks[0].size)
    parts = [pack(*searched(blocks[start : start + step], bits), bits) for start in range(0, len(blocks), step)]
    packed, scales, zeros = (
        np.concatenate(part) for part in zip(*((p.packed, p.scales, p.zero_points) for p in parts), strict=True)
    )
    return PackedMatrix(bits, packed, scales, zeros)


def searched(blocks: Floats, bits: int) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint8]]:
    """Blocks (columns, n, block) to values, scales (columns, n) and zero points."""
    importance = np.abs(blocks) + np.sqrt((blocks**2).mean(-1, keepdims=True))
    best_error = np.full(blocks.shape[:2], np.inf, np.float32)
    values, scales = np.zeros(blocks.shape, np.uint8), np.ones(blocks.shape[:2], np.float32)
    zeros = np.zeros(blocks.shape[:2], np.uint8)
    for share in SHRUNK:
        tried, fitted, zero = _fitted(blocks, importance, share, largest_level(bits))
        shown = (tried - zero[..., None].astype(np.float32)) * fitted[..., None]
        error = (importance * (blocks - shown) ** 2).sum(-1)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        values[better], scales[better], zeros[better] = tried[better], fitted[better], zero[better]
    return values, scales, zeros


def _fitted(
    blocks: Floats, importance: Floats, share: float, levels: int
) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint8]]:
    """One try: shrink the range to `share`, then fit the scale to the values."""
    low, high = np.minimum(blocks.min(-1), 0) * share, np.maximum(blocks.max(-1), 0) * share
    scales = np.maximum((high - low) / levels, _TINY)
    zeros = np.clip(np.rint(-low / scales), 0, levels)
    values = np.clip(np.rint(blocks / scales[..., None]) + zeros[..., None], 0, levels)
    steps = values - zeros[..., None]
    # The scale s that minimises sum(w * (x - s * steps)**2) is sum(w * x * steps) / sum(w * steps**2).
    down = (importance * steps * steps).sum(-1)
    fitted = np.where(down > 0, (importance * blocks * steps).sum(-1) / np.maximum(down, _TINY), scales)
    return values.astype(np.uint8), np.where(fitted > 0, fitted, scales).astype(np.float32), zeros.astype(np.uint8)
