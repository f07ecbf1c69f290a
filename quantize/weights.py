"""Float32 matrices in fewer bits, in the layout of the kernels.

In: a weight (rows, columns) as ONNX MatMul stores it: y = x @ weight. Out: its quantised form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnxruntime.capi._pybind_state import quantize_matmul_4bits

from voxrill.runtime.bundle.bit_stream import from_stream, to_stream

Floats = NDArray[np.float32]

INT8_LIMIT = 127
EXACT_LIMIT = 64
"""The largest 8-bit number whose products are exact on every processor. On x86 without VNNI, two products are added in
16 bits (see `voxrill.devices.overflow`): 2 * 255 * 64 = 32,640 < 2^15."""


@dataclass(frozen=True)
class Int8Matrix:
    """8-bit numbers (rows, columns) with a scale for each column; symmetric."""

    values: NDArray[np.int8]
    scales: Floats


@dataclass(frozen=True)
class PackedMatrix:
    """2-, 3- or 4-bit numbers with a scale and a zero point for each block, as MatMulNBits takes them.

    packed (columns, blocks, bytes of a block); scales (columns, blocks); zero_points (columns, bytes). The numbers of a
    block are a stream of bits, the lowest first. So are the zero points of a column, but for those of 3 bits: each has
    a byte.
    """

    bits: int
    packed: NDArray[np.uint8]
    scales: Floats
    zero_points: NDArray[np.uint8]


def largest_level(bits: int) -> int:
    """The largest number of so many bits."""
    return (1 << bits) - 1


def to_int8(weight: Floats, axis: int = 1, limit: int = INT8_LIMIT) -> Int8Matrix:
    """Round to numbers from -limit to limit, one scale for each index along `axis` (1: columns, 0: rows)."""
    largest = np.abs(weight).max(1 - axis, keepdims=True)
    scales = np.where(largest > 0, largest / limit, 1.0).astype(np.float32)
    values = np.clip(np.rint(weight / scales), -limit, limit).astype(np.int8)
    return Int8Matrix(values, scales.reshape(-1))


def to_nearest(weight: Floats, bits: int, block: int) -> PackedMatrix:
    """Round to the nearest of the levels. `block` rows of a column share a scale; asymmetric."""
    return _to_int4(weight, block) if bits == 4 else _to_fewer(weight, bits, block)


def _to_int4(weight: Floats, block: int) -> PackedMatrix:
    """With onnxruntime's own routine."""
    rows, columns = weight.shape
    blocks = -(-rows // block)
    padded = np.ascontiguousarray(np.pad(weight, ((0, blocks * block - rows), (0, 0))), np.float32)
    packed = np.zeros((columns, blocks, block // 2), np.uint8)
    scales = np.zeros((columns, blocks), np.float32)
    zero_points = np.zeros((columns, (blocks + 1) // 2), np.uint8)
    quantize_matmul_4bits(packed, padded, scales, zero_points, block, columns, rows, False)
    return PackedMatrix(4, packed, in_eleven_bits(scales), zero_points)


def _to_fewer(weight: Floats, bits: int, block: int) -> PackedMatrix:
    blocks = in_blocks(weight, block)
    scales, zeros = block_range(np.moveaxis(blocks, -1, 0), bits)
    steps = np.rint(blocks / scales[..., None]) + zeros[..., None]
    return pack(np.clip(steps, 0, largest_level(bits)).astype(np.uint8), scales, zeros, bits)


def in_blocks(weight: Floats, block: int) -> Floats:
    """(rows, columns) to (columns, blocks, block); the last block is filled up with zeros."""
    rows, columns = weight.shape
    blocks = -(-rows // block)
    padded = np.pad(weight, ((0, blocks * block - rows), (0, 0)))
    return np.ascontiguousarray(padded.T, np.float32).reshape(columns, blocks, block)


def block_range(rows: Floats, bits: int) -> tuple[Floats, NDArray[np.uint8]]:
    """Scale and zero point (...) that make `rows` (n, ...) fill the range of so many bits. Zero stays exactly zero."""
    levels = largest_level(bits)
    low, high = np.minimum(rows.min(0), 0), np.maximum(rows.max(0), 0)  # the range includes 0, so that 0 is exact
    scales = np.where(high > low, (high - low) / levels, 1.0).astype(np.float32)
    return scales, np.clip(np.rint(-low / scales), 0, levels).astype(np.uint8)


def in_eleven_bits(scales: Floats) -> Floats:
    """Round to the 11 bits of a float16, whatever the size of a number.

    Our own products keep scales in float16. With these, they give what onnxruntime's give.
    """
    part, exponent = np.frexp(np.ascontiguousarray(scales, np.float32))
    rounded: Floats = np.ldexp(np.rint(part * 2048) / 2048, exponent).astype(np.float32)
    return rounded


def pack(values: NDArray[np.uint8], scales: Floats, zero_points: NDArray[np.uint8], bits: int) -> PackedMatrix:
    """Pack numbers of so many bits, one in a byte.

    values (columns, blocks, block); scales and zero_points (columns, blocks).
    """
    zeros = zero_points if bits == 3 else to_stream(zero_points, bits)
    return PackedMatrix(bits, to_stream(values, bits), in_eleven_bits(scales), np.ascontiguousarray(zeros))


def unpacked(matrix: PackedMatrix, rows: int) -> Floats:
    """The numbers (rows, columns) that a packed matrix stands for."""
    columns, blocks = matrix.scales.shape
    values = from_stream(matrix.packed, matrix.bits).astype(np.float32)
    zeros = matrix.zero_points if matrix.bits == 3 else from_stream(matrix.zero_points, matrix.bits)[:, :blocks]
    shown = (values - zeros[..., None].astype(np.float32)) * matrix.scales[..., None]
    found: Floats = shown.reshape(columns, -1)[:, :rows].T
    return found
