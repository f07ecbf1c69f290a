"""Float32 matrices in fewer bits, in the layout of onnxruntime's kernels.

In: a weight (rows, columns) as ONNX MatMul stores it: y = x @ weight. Out: its quantised form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnxruntime.capi._pybind_state import quantize_matmul_4bits

Floats = NDArray[np.float32]

INT8_LIMIT = 127
INT4_LEVELS = 15
"""The largest 4-bit number."""


@dataclass(frozen=True)
class Int8Matrix:
    """8-bit numbers (rows, columns) with a scale for each column; symmetric."""

    values: NDArray[np.int8]
    scales: Floats


@dataclass(frozen=True)
class Int4Matrix:
    """4-bit numbers, two in a byte: (columns, blocks, block / 2), with a scale and a zero point for each block."""

    packed: NDArray[np.uint8]
    scales: Floats
    zero_points: NDArray[np.uint8]


def to_int8(weight: Floats, axis: int = 1) -> Int8Matrix:
    """Round to 8 bits, one scale for each index along `axis` (1: columns, 0: rows)."""
    largest = np.abs(weight).max(1 - axis, keepdims=True)
    scales = np.where(largest > 0, largest / INT8_LIMIT, 1.0).astype(np.float32)
    values = np.clip(np.rint(weight / scales), -INT8_LIMIT, INT8_LIMIT).astype(np.int8)
    return Int8Matrix(values, scales.reshape(-1))


def to_int4(weight: Floats, block: int) -> Int4Matrix:
    """Round to 4 bits with onnxruntime's own routine. `block` rows of a column share a scale; asymmetric."""
    rows, columns = weight.shape
    blocks = -(-rows // block)
    padded = np.ascontiguousarray(np.pad(weight, ((0, blocks * block - rows), (0, 0))), np.float32)
    packed = np.zeros((columns, blocks, block // 2), np.uint8)
    scales = np.zeros((columns, blocks), np.float32)
    zero_points = np.zeros((columns, (blocks + 1) // 2), np.uint8)
    quantize_matmul_4bits(packed, padded, scales, zero_points, block, columns, rows, False)
    return Int4Matrix(packed, scales, zero_points)


def in_blocks(weight: Floats, block: int) -> Floats:
    """(rows, columns) to (columns, blocks, block); the last block is filled up with zeros."""
    rows, columns = weight.shape
    blocks = -(-rows // block)
    padded = np.pad(weight, ((0, blocks * block - rows), (0, 0)))
    return np.ascontiguousarray(padded.T, np.float32).reshape(columns, blocks, block)


def block_range(rows: Floats) -> tuple[Floats, NDArray[np.uint8]]:
    """Scale and zero point (columns,) that make `rows` (n, columns) fill the 4-bit range. Zero stays exactly zero."""
    low, high = np.minimum(rows.min(0), 0), np.maximum(rows.max(0), 0)  # the range includes 0, so that 0 is exact
    scales = np.where(high > low, (high - low) / INT4_LEVELS, 1.0).astype(np.float32)
    return scales, np.clip(np.rint(-low / scales), 0, INT4_LEVELS).astype(np.uint8)


def pack_int4(values: NDArray[np.uint8], scales: Floats, zero_points: NDArray[np.uint8]) -> Int4Matrix:
    """Pack 4-bit numbers, one in a byte, as MatMulNBits wants them: two in a byte, the first one in the low half.

    values (columns, blocks, block); scales and zero_points (columns, blocks).
    """
    # Zero points are packed in pairs as well; an odd number of blocks gets one more.
    zeros = np.pad(zero_points, ((0, 0), (0, zero_points.shape[1] % 2)))
    return Int4Matrix(_pairs(values), np.ascontiguousarray(scales, np.float32), _pairs(zeros))


def _pairs(numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(numbers[..., 0::2] | numbers[..., 1::2] << 4, np.uint8)
