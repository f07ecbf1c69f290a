"""Numbers of few bits as a stream: the lowest bit of the first number is the lowest bit of the first byte.

In: numbers, one in a byte. Out: the stream in bytes; and back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def to_stream(numbers: Bytes, bits: int) -> Bytes:
    """Numbers (..., n) of so many bits to bytes (..., n * bits / 8), the last one filled up with zeros."""
    single = numbers[..., None] >> np.arange(bits, dtype=np.uint8) & 1
    return np.packbits(single.reshape(*numbers.shape[:-1], -1), axis=-1, bitorder="little")


def from_stream(stream: Bytes, bits: int) -> Bytes:
    """Bytes (..., m) to the numbers (..., m * 8 / bits) that lie in them whole."""
    count = stream.shape[-1] * 8 // bits
    single = np.unpackbits(stream, axis=-1, count=count * bits, bitorder="little")
    return np.packbits(single.reshape(*stream.shape[:-1], count, bits), axis=-1, bitorder="little")[..., 0]
